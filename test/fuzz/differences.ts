/** Where Banyan and nginx part, by the name that the run gives it, and why. A difference that is not here fails the run. */
export const DIFFERENCES: Readonly<Record<string, string>> = {
  'Banyan alone accepts: an empty Host': 'An empty Host is legal (RFC 9110 7.2); nginx answers 400.',
  'Banyan alone accepts: TRACE': 'nginx answers every TRACE with 405; Banyan leaves that to the monolith.',
  'Banyan alone accepts: behind TRACE': 'nginx has closed the connection after its 405.',
  'Banyan alone accepts: OPTIONS *': 'nginx answers 400 to the target `*` (RFC 9112 3.2.4 has it for OPTIONS).',
  'Banyan alone accepts: a thousand fields':
    'Banyan limits the bytes of a head (64 KiB), nginx as shipped by Debian also the number of fields.',
  'Banyan alone accepts: a repeated field':
    'nginx answers 400 where some fields of which one is enough come twice; Banyan sends both on, as they came.',
  'Banyan alone accepts: a path above the root':
    'nginx resolves `..` and answers 400 where that leads out; Banyan sends paths on byte for byte.',
  'Banyan alone accepts: a malformed %': 'nginx decodes paths and answers 400 where it cannot; Banyan sends paths on byte for byte.',
  'Banyan alone accepts: a tab': 'nginx takes no tab for white space around a value; RFC 9110 5.6.3 does.',
  'Banyan alone accepts: behind HTTP/1.0': 'nginx closes an HTTP/1.0 connection behind an answer without a length; Banyan gave it one.',
  'nginx alone accepts: behind an Upgrade':
    'Banyan ends a connection behind an Upgrade that it does not take: Node may have dropped what comes next.',
  'Banyan alone accepts: upgrade': 'nginx as it is set up here knows WebSocket only; Banyan carries any protocol that is not HTTP or TLS.',
  'nginx alone accepts: field-name': 'nginx leaves a line out that it cannot read and goes on; Banyan refuses the request (RFC 9112 5.1).',
  'nginx alone accepts: field-value': 'nginx sends control characters in values on, or cuts there; Banyan refuses them (RFC 9110 5.5).',
  'nginx alone accepts: bare-lf':
    'nginx takes LF for CRLF, as RFC 9112 2.2 allows; two readers in a row that differ in it are a smuggling hole, so Banyan refuses.',
  'nginx alone accepts: bare-cr': 'nginx leaves a CR in front of CRLF out; Banyan refuses it (RFC 9112 2.2).',
  'nginx alone accepts: obs-fold':
    'nginx takes a folded line for a line that it cannot read, and leaves it out; Banyan answers 400 (RFC 9112 5.2).',
  'nginx alone accepts: start-line': 'nginx speaks HTTP/0.9: a line without a version is a request there.',
  'nginx alone accepts: version-minor': 'nginx takes HTTP/1.2 to 1.9 for 1.1, as RFC 9110 2.5 has it; Node, and so Banyan, answers 400.',
  'nginx alone accepts: expectation': 'nginx ignores expectations that it does not know; Banyan answers 417 (RFC 9110 10.1.1).',
  'nginx alone accepts: method-unknown': 'nginx takes any method in capitals; Banyan the 34 that Node knows (see below).',
  'nginx alone accepts: max-forwards': 'Banyan answers OPTIONS with `Max-Forwards: 0` itself (RFC 9110 7.6.2); nginx sends it on.',
  'nginx alone accepts: target': 'nginx takes a URL of any scheme for a target; Banyan http and https.',
  'nginx alone accepts: fragment': 'nginx cuts a fragment off; Banyan refuses it, for a target has none (RFC 9112 3.2).',
  'nginx alone accepts: target-high-bytes':
    'nginx sends raw bytes beyond ASCII in a target on; Node, and so Banyan, answers 400 (see below).',
  'nginx alone accepts: host-odd': 'nginx sends a comma in Host on; Banyan refuses it: legal in RFC 3986, in no name that there is.',
  'nginx alone accepts: host-malformed': 'nginx checks little of Host; Banyan all of it (RFC 9112 3.2).',
  'nginx alone accepts: head-size':
    'nginx as it is set up here takes eight heads of 64 KiB; Banyan 64 KiB in all (`client.maxHeaderBytes`).',
  'nginx alone accepts: chunk-size':
    'nginx takes spaces, LF and semicolons around a chunk size for white space; Banyan refuses them (RFC 9112 7.1).',
  'nginx alone accepts: chunk-end': 'nginx takes LF behind a chunk; Banyan refuses it (RFC 9112 7.1).',
  'nginx alone accepts: chunk-extension':
    'nginx skips whatever stands behind a semicolon; Banyan refuses a malformed extension (RFC 9112 7.1.1).',
  'nginx alone accepts: chunk-extension-space':
    'nginx takes white space around a chunk size, which RFC 9112 7.1.1 wants read only; Node, and so Banyan, answers 400.',
  'nginx alone accepts: chunk-extension-name': 'nginx skips an extension without a name; Node, and so Banyan, refuses most of them.',
  'nginx alone accepts: chunk-extension-size': 'nginx skips extensions of any size; Banyan answers 413 beyond 16 KiB (CVE-2024-22019).',
  'nginx alone accepts: chunk-size-long': 'nginx takes any number of leading zeros; Node refuses some.',
  'nginx alone accepts: trailer': 'nginx drops trailers unread; Banyan refuses malformed ones.',
  'nginx alone accepts: trailer-size': 'nginx drops trailers unread; Banyan answers 431 beyond 64 KiB.',
  'nginx alone accepts: trailer-framing':
    'nginx drops trailers unread; Banyan refuses Content-Length and Transfer-Encoding among them (RFC 9110 6.5.1).',
  'nginx alone accepts: blank-lines': 'nginx skips empty lines in front of a request; so does Banyan, but not in front of everything.',
  'nginx alone accepts: line-spaces': 'nginx skips spaces in front of a target; Node, and so Banyan, not in front of every one.',
  'nginx alone accepts: incomplete': 'The bytes end in what nginx has taken for a whole request already.',
  'nginx alone accepts: coding-tab': 'nginx takes a tab behind `chunked` for white space; Node, and so Banyan, does not.',
  'nginx sends on what no strict reader takes: host-malformed':
    'nginx sends a malformed Host on as it came; Banyan answers 400 (RFC 9112 3.2).',
  'nginx sends on what no strict reader takes: field-value':
    'nginx sends control characters in values on; Banyan answers 400 (RFC 9110 5.5).',
  'nginx sends on what no strict reader takes: field-name': 'nginx sends other broken fields on that came with it.',
  'nginx sends on what no strict reader takes: fragment': 'nginx sends a fragment on in the target; Banyan answers 400 (RFC 9112 3.2).',
  'nginx sends on what no strict reader takes: bare-lf': 'nginx mends the line ends and sends the malformed Host of the same request on.',
  'nginx sends on what no strict reader takes: target': 'nginx sends on a target of a form that no origin server takes.',
  'nginx sends on what no strict reader takes: bare-cr': 'nginx sends a CR inside a value on; Banyan answers 400 (RFC 9112 2.2).',
  'nginx sends on what no strict reader takes: start-line':
    'nginx sends a fragment or raw bytes of a target on that came with the broken line.',
  'nginx sends on what no strict reader takes: method-unknown':
    'nginx takes a method that Node does not know, and sends a malformed target on that stands in the request behind it; Banyan has answered 400 and closed.',
  'sent on differently: OPTIONS *': 'OPTIONS of a URL without a path is for the server as a whole, `*` (RFC 9112 3.2.4); nginx sends `/`.',
  'sent on differently: a URL without a path':
    'A URL without a path but with a query has the path `/` (RFC 9112 3.2.1): Banyan sends `/?`, nginx leaves the query out of it.',
};
