const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Any text, safe inside an element or a quoted attribute. */
export const escapeHtml = (value: string): string => value.replace(/[&<>"']/g, (character) => ENTITIES[character]!);

/** A decimal amount as the pages print it: `12.50 EUR`. */
export const money = (amount: number, currency: string): string => `${amount.toFixed(2)} ${currency}`;

/** A whole page. `title` is plain text, `body` is HTML. */
export const page = (title: string, body: string, theme = 'light'): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>${escapeHtml(title)} - Garden shop</title>
<link rel="stylesheet" href="/assets/shop.css">
<script src="/assets/shop.js" defer></script>
</head>
<body class="${escapeHtml(theme)}">
<nav><a href="/">Garden shop</a> <a href="/orders/new">Order</a> <a href="/account">Account</a> <a href="/upload">Upload</a></nav>
<main>
<h1>${escapeHtml(title)}</h1>
${body}
</main>
<footer>Ticks seen: <output id="ticks">0</output></footer>
</body>
</html>
`;
