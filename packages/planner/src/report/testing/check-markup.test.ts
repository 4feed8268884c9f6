import { describe, expect, it } from 'vitest';
import { descendants, parseMarkup, textOf } from './check-markup.js';

describe('the reader of markup that the tests of the page rest on', () => {
  it('reads elements, attributes and text', () => {
    const root = parseMarkup(
      '<!doctype html><p class="a &amp; b" hidden>x &lt; <b>y</b><br></p><style>a>b</style>',
    );
    const [p, b, br, style] = descendants(root);
    expect([p!.name, b!.name, br!.name, style!.name]).toEqual(['p', 'b', 'br', 'style']);
    expect([...p!.attributes]).toEqual([
      ['class', 'a & b'],
      ['hidden', ''],
    ]);
    expect(textOf(root)).toBe('x < y');
  });

  it.each([
    '<p>',
    '<p></b></p>',
    '</p>',
    '<p>a > b</p>',
    '<p>a < b</p>',
    '<p>a & b</p>',
    '<p class=a></p>',
    '<p class="a" class="b"></p>',
    '<p title="<b>"></p>',
    '<script>1',
    '<p title="a"onclick="b"></p>',
  ])('refuses %s', (markup) => {
    expect(() => parseMarkup(markup)).toThrow();
  });
});
