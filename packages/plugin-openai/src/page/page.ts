import { createHash } from 'node:crypto';
import { SCRIPT } from './script.js';
import { STYLE } from './style.js';

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CQIL chat</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<header>
  <div class="bar">
    <h1>CQIL chat</h1>
    <label>Model <select id="model"></select></label>
    <label id="compare" hidden>Compare with <select id="other"><option value="">nothing</option></select></label>
  </div>
  <details>
    <summary>Settings</summary>
    <div class="bar">
      <label>Temperature <input id="temperature" type="number" min="0" max="2" step="0.1" value="0.7"></label>
      <label>At most <input id="tokens" type="number" min="1" step="1" value="256"> tokens</label>
      <button id="clear" type="button">Clear the conversation</button>
    </div>
    <label for="system">What the model is told before the conversation</label>
    <textarea id="system" rows="2"></textarea>
  </details>
</header>
<main tabindex="0" aria-label="Conversation">
  <div id="empty" class="empty"><strong>Ask something.</strong>The answer comes from this machine, as it is written, with its speed. Choose a second model to see both.</div>
  <div id="log"></div>
</main>
<footer>
  <ul id="paces" aria-label="Tokens per second, by model"></ul>
  <form id="form">
    <label class="hidden" for="input">Message</label>
    <textarea id="input" rows="1" placeholder="Message" aria-describedby="hint" autofocus></textarea>
    <button id="send" class="primary">Send</button>
  </form>
  <p id="hint" class="hint">Enter sends, Shift+Enter begins a new line, Escape stops.</p>
  <p id="status" class="hidden" role="status" aria-live="polite"></p>
</footer>
<script>${SCRIPT}</script>
</body>
</html>
`;

const hash = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** Nothing but the page's own script and looks, and this server. `style` attributes are what moves the bars. */
const POLICY = [
  "default-src 'none'",
  `script-src ${hash(SCRIPT)}`,
  "style-src 'unsafe-inline'",
  'img-src data:',
  "connect-src 'self'",
  "form-action 'none'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** `GET /`: a page to chat, in one piece. */
export function chatPage(): Response {
  return new Response(PAGE, {
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'content-security-policy': POLICY,
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cache-control': 'no-cache',
    },
  });
}
