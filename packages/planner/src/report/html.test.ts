import fc from 'fast-check';
import { expect, it } from 'vitest';
import { escapeHtml, html, trusted } from './html.js';

it('escapes text, in elements and in attributes, and joins lists', () => {
  const bad = `"><script>alert('&')</script>`;
  expect(html`<p title="${bad}">${bad}</p>`.text).toBe(
    '<p title="&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;">' +
      '&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;</p>',
  );
  expect(html`${['a', html`<b>${'<'}</b>`, false, undefined, ['c']]}`.text).toBe('a<b>&lt;</b>c');
  expect(html`${trusted('<i>')}`.text).toBe('<i>');
});

it('writes numbers as coordinates', () => {
  expect(html`${1 / 3},${2},${-0.001}`.text).toBe('0.33,2,0');
});

it('leaves nothing of any text that could open a tag, close an attribute or break the page', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const escaped = escapeHtml(text);
      expect(escaped).not.toMatch(/[<>"']/);
      expect(escaped).not.toMatch(/&(?!amp;|lt;|gt;|quot;|#39;)/);
    }),
  );
  expect(escapeHtml('a\u0000b\uD800c\td\r\n')).toBe('a\uFFFDb\uFFFDc\td\n');
});
