import { Script } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { createOpenAIHandler } from '../handler.js';
import { scriptedModel } from '../test/scripted.js';
import { SCRIPT } from './script.js';

const get = (options: object = {}) =>
  createOpenAIHandler({ models: [scriptedModel([])], page: true, ...options })(
    new Request('http://localhost/'),
  );

describe('the page', () => {
  it('is there when it is asked for', async () => {
    expect((await get({ page: false })).status).toBe(404);
    const response = await get();
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(await response.text()).toContain('<html lang="en">');
  });

  it('wants a key where there are keys, in the way that browsers ask a person for one', async () => {
    const response = await get({ apiKeys: ['secret'] });
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toMatch(/^Basic /);
  });

  it('needs nothing from elsewhere, and may have nothing', async () => {
    const response = await get();
    const text = await response.text();
    expect(text).not.toMatch(/(src|href)="(?!data:)/);
    expect(text).not.toMatch(/https?:\/\//);
    expect(response.headers.get('content-security-policy')).toMatch(
      /^default-src 'none'; script-src 'sha256-[A-Za-z0-9+/]{43}='; /,
    );
  });

  it('has a script that browsers can read, and an element for every id in it', async () => {
    expect(() => new Script(SCRIPT)).not.toThrow();
    const text = await (await get()).text();
    const ids = [...SCRIPT.matchAll(/\bat\('(\w+)'\)/g)].map((match) => match[1] as string);
    expect(ids.length).toBeGreaterThan(8);
    for (const id of ids) expect(text).toContain(`id="${id}"`);
    // What a person fills in has a name that is read out.
    for (const [, id] of text.matchAll(/<(?:textarea|input|select) id="(\w+)"/g)) {
      expect(text).toMatch(new RegExp(`<label[^>]* for="${id}"|<label[^>]*>[^<]*<\\w+ id="${id}"`));
    }
  });
});
