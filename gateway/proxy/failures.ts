import { AppError, type Sent } from '@banyan/contracts/errors.ts';

/** Why a certificate was not accepted: OpenSSL's verification results as Node names them (node:tls, X509 certificate error codes), and Node's own. */
const CERTIFICATE: ReadonlySet<string> = new Set([
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'ERR_TLS_CERT_ALTNAME_FORMAT',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_GET_CRL',
  'UNABLE_TO_DECRYPT_CERT_SIGNATURE',
  'UNABLE_TO_DECRYPT_CRL_SIGNATURE',
  'UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_SIGNATURE_FAILURE',
  'CRL_SIGNATURE_FAILURE',
  'CERT_NOT_YET_VALID',
  'CERT_HAS_EXPIRED',
  'CRL_NOT_YET_VALID',
  'CRL_HAS_EXPIRED',
  'ERROR_IN_CERT_NOT_BEFORE_FIELD',
  'ERROR_IN_CERT_NOT_AFTER_FIELD',
  'ERROR_IN_CRL_LAST_UPDATE_FIELD',
  'ERROR_IN_CRL_NEXT_UPDATE_FIELD',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'CERT_CHAIN_TOO_LONG',
  'CERT_REVOKED',
  'INVALID_CA',
  'PATH_LENGTH_EXCEEDED',
  'INVALID_PURPOSE',
  'CERT_UNTRUSTED',
  'CERT_REJECTED',
  'HOSTNAME_MISMATCH',
]);

/** The other side gave the handshake up with an alert (RFC 8446 6). */
const ALERT = /^ERR_SSL_.*_ALERT_/;
const REFUSES_CERTIFICATE =
  /_ALERT_(?:CERTIFICATE_|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE|NO_CERTIFICATE)/;

/** How far an exchange had come when it failed. */
export type Progress = {
  /** Bytes of the request may have been written to a socket. */
  readonly started: boolean;
  /** Bytes of the response had come. */
  readonly begun: boolean;
};

const codeOf = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string' ? error.code : '';

const messageOf = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'message' in error && typeof error.message === 'string' ? error.message : '';

/**
 * An error of a socket as one of ours. `sent` is `no` only when no byte can have left, `yes` once the upstream began to
 * answer. The message names no host or port: it may be shown to a client.
 */
export const failureOf = (error: unknown, progress: Progress): AppError => {
  if (error instanceof AppError) return error;
  const code = codeOf(error);
  const sent: Sent = progress.begun ? 'yes' : progress.started ? 'maybe' : 'no';
  // A server that wants another certificate of ours says so when we believe the handshake over (RFC 8446 4.4.2.4): it reads no request then.
  if (!progress.started || (!progress.begun && REFUSES_CERTIFICATE.test(code))) {
    return new AppError('upstream-unreachable', 'The upstream could not be reached', { sent: 'no', retryable: true, cause: error });
  }
  if (code.startsWith('HPE_'))
    return new AppError('upstream-protocol', 'The upstream sent something that is not HTTP', { sent: 'yes', cause: error });
  return new AppError('upstream-reset', 'The upstream broke off', { sent, retryable: sent === 'maybe', cause: error });
};

/** The client went first; no mark against the upstream. */
export const clientLeft = (sent: Sent): AppError => new AppError('client-left', 'The client left', { sent });

/** RFC 9209 2.3 error type of a failure of ours. */
export const proxyStatusOf = (error: AppError): string => {
  const code = codeOf(error.cause);
  switch (error.code) {
    case 'upstream-unreachable':
      if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'dns_error';
      // A unix socket that is not there, or not for us, is as closed as a port.
      if (code === 'ECONNREFUSED' || code === 'ENOENT' || code === 'EACCES') return 'connection_refused';
      if (code === 'ETIMEDOUT') return 'connection_timeout';
      if (code === 'ECONNRESET' || code === 'EPIPE') return 'connection_terminated';
      if (CERTIFICATE.has(code)) return 'tls_certificate_error';
      if (ALERT.test(code) || (code === 'EPROTO' && messageOf(error.cause).includes('SSL alert number'))) return 'tls_alert_received';
      if (code === 'EPROTO' || code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_')) return 'tls_protocol_error';
      return 'destination_ip_unroutable';
    case 'upstream-timeout':
      return code === 'IDLE' ? 'connection_read_timeout' : 'http_response_timeout';
    case 'upstream-reset':
      return error.sent === 'yes' ? 'http_response_incomplete' : 'connection_terminated';
    case 'upstream-protocol':
      return 'http_protocol_error';
    case 'overloaded':
      return 'connection_limit_reached';
    case 'bad-request':
    case 'payload-too-large':
    case 'expectation-failed':
    case 'request-timeout':
    case 'uri-too-long':
    case 'headers-too-large':
    case 'method-not-allowed':
    case 'unprocessable':
    case 'key-reused':
    case 'conflict':
      return 'http_request_error';
    case 'breaker-open':
    case 'context-unavailable':
    case 'context-frozen':
    case 'store-unavailable':
    case 'backlog-full':
    case 'draining':
      return 'destination_unavailable';
    case 'forbidden':
    case 'unauthorized':
      return 'http_request_denied';
    default:
      return 'proxy_internal_error';
  }
};
