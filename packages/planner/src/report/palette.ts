/**
 * The colours of the page, for light and dark. Series are from Okabe and Ito's palette ("Color Universal Design",
 * 2008), darkened or lightened until they stand out from the paper; heatmap steps are one hue, paper to ink, so that
 * more alike always means further from the paper. A test holds the contrasts.
 */
export interface Palette {
  readonly paper: string;
  readonly panel: string;
  readonly ink: string;
  readonly muted: string;
  readonly accent: string;
  readonly rule: string;
  readonly grid: string;
  readonly series: readonly string[];
  readonly heat: readonly string[];
}

export const LIGHT: Palette = {
  paper: '#ffffff',
  panel: '#f5f6f4',
  ink: '#1b1f23',
  muted: '#575e66',
  accent: '#00609a',
  rule: '#c9cdd1',
  grid: '#e3e6e8',
  series: ['#0072b2', '#c24a00', '#007a5a', '#a3477f', '#6b5d00'],
  heat: [
    '#f4f6f5',
    '#e4edf0',
    '#d0e2ea',
    '#b6d3e3',
    '#97c1da',
    '#72abd0',
    '#4a90c2',
    '#2773ab',
    '#0f548b',
    '#083463',
  ],
};

export const DARK: Palette = {
  paper: '#15181b',
  panel: '#1d2125',
  ink: '#e8eaec',
  muted: '#a3abb3',
  accent: '#6cbdf0',
  rule: '#454c53',
  grid: '#2b3036',
  series: ['#56b4e9', '#f0a22e', '#2cc295', '#e08fbd', '#d8cb4a'],
  heat: [
    '#1d2329',
    '#1f2d38',
    '#21394a',
    '#24475f',
    '#285776',
    '#2f6c92',
    '#4186b0',
    '#66a4ca',
    '#98c6e2',
    '#d6ecf8',
  ],
};

/** The palette as CSS custom properties: `--paper`, …, `--s0`, …, `--h0`, …. */
export function cssVariables(palette: Palette): string {
  const { series, heat, ...single } = palette;
  const pairs = [
    ...Object.entries(single),
    ...series.map((value, i) => [`s${i}`, value] as const),
    ...heat.map((value, i) => [`h${i}`, value] as const),
  ];
  return pairs.map(([name, value]) => `--${name}:${value}`).join(';');
}
