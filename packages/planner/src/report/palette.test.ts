import { describe, expect, it } from 'vitest';
import { cssVariables, DARK, LIGHT } from './palette.js';

/** Relative luminance of `#rrggbb` (WCAG 2.2). */
function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
}

function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high! + 0.05) / (low! + 0.05);
}

it('measures contrast as WCAG does', () => {
  expect(contrast('#000000', '#ffffff')).toBeCloseTo(21);
  expect(contrast('#777777', '#ffffff')).toBeCloseTo(4.48, 2);
});

describe.each([
  ['light', LIGHT],
  ['dark', DARK],
])('in the %s theme', (_name, palette) => {
  it('text stands out from what is behind it (4.5 : 1)', () => {
    for (const paper of [palette.paper, palette.panel]) {
      for (const text of [palette.ink, palette.muted, palette.accent, ...palette.series]) {
        expect(contrast(text, paper), `${text} on ${paper}`).toBeGreaterThanOrEqual(4.5);
      }
    }
  });

  it('each step of the heatmap is further from the paper than the one before', () => {
    const steps = palette.heat.map((colour) => contrast(colour, palette.paper));
    expect(steps).toEqual(steps.toSorted((a, b) => a - b));
    expect(new Set(steps).size).toBe(palette.heat.length);
  });

  it('every colour has a name in the style sheet', () => {
    const css = cssVariables(palette);
    expect(css).toContain(`--s4:${palette.series[4]}`);
    expect(css).toContain(`--h9:${palette.heat[9]}`);
    expect(css).toContain(`--muted:${palette.muted}`);
  });
});
