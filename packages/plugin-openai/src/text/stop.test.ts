import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StopMatcher } from './stop.js';

/** Feeds the pieces, and gives back what was handed out and whether a stop came. */
function run(stops: readonly string[], pieces: readonly string[]) {
  const matcher = new StopMatcher(stops);
  const out: string[] = [];
  for (const piece of pieces) {
    const { text, stopped } = matcher.push(piece);
    out.push(text);
    if (stopped) return { out, text: out.join(''), stopped };
  }
  out.push(matcher.flush());
  return { out, text: out.join(''), stopped: false };
}

/** Texts of few letters, so that stop strings and their beginnings occur. */
const letters = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), maxLength: 30 });
const stopString = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), minLength: 1, maxLength: 4 });

describe('StopMatcher', () => {
  it('cuts at a stop string that comes in pieces', () => {
    expect(run(['\n\nUser:'], ['Hello', '\n', '\nUs', 'er: what'])).toEqual({
      out: ['Hello', '', '', ''],
      text: 'Hello',
      stopped: true,
    });
  });

  it('hands out what turned out to be no stop string', () => {
    expect(run(['END'], ['E', 'N', 'ough'])).toMatchObject({ out: ['', '', 'ENough', ''], stopped: false });
    expect(run(['END'], ['the E'])).toMatchObject({ out: ['the ', 'E'], text: 'the E' });
  });

  it('holds nothing back without stop strings', () => {
    expect(run([], ['a', 'b'])).toEqual({ out: ['a', 'b', ''], text: 'ab', stopped: false });
  });

  it('finds the first place of a stop string, however the text is cut into pieces', () => {
    fc.assert(
      fc.property(fc.array(letters), stopString, (pieces, stop) => {
        const whole = pieces.join('');
        const at = whole.indexOf(stop);
        const { text, stopped } = run([stop], pieces);
        expect({ text, stopped }).toEqual({
          text: at === -1 ? whole : whole.slice(0, at),
          stopped: at !== -1,
        });
      }),
    );
  });

  it('never hands out any of several stop strings', () => {
    fc.assert(
      fc.property(fc.array(letters), fc.array(stopString, { maxLength: 4 }), (pieces, stops) => {
        const whole = pieces.join('');
        const { text, stopped } = run(stops, pieces);
        expect(whole.startsWith(text)).toBe(true);
        expect(stopped).toBe(stops.some((stop) => whole.includes(stop)));
        for (const stop of stops) expect(text).not.toContain(stop);
        if (!stopped) expect(text).toBe(whole);
      }),
    );
  });
});
