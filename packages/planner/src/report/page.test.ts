import { planSteps } from '@cqil/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { OptimizeReport } from '../optimize/document.js';
import { bypassName, excess, nats, share } from './format.js';
import { renderReportPage } from './page.js';
import { descendants, type Element, parseMarkup, textOf } from './testing/check-markup.js';
import { madeUpReport } from './testing/made-up-report.js';

const REPORT = madeUpReport();
const PAGE = renderReportPage(REPORT);

function elements(page: string, name?: string): Element[] {
  const all = descendants(parseMarkup(page));
  return name === undefined ? all : all.filter((element) => element.name === name);
}

function byId(page: string, id: string): Element {
  const found = elements(page).filter((element) => element.attributes.get('id') === id);
  expect(found, id).toHaveLength(1);
  return found[0]!;
}

/** What code leaves in a page where there was no value; the script, which has its own, is not looked at. */
function slips(page: string): string[] {
  return page.replace(/<script>[\s\S]*<\/script>/, '').match(/NaN|undefined|Infinity/g) ?? [];
}

/** The text of each cell of each row of a table's bodies, rows that name a body left out. */
function cells(table: Element): string[][] {
  return descendants(table)
    .filter(({ name, attributes }) => name === 'tr' && attributes.get('class') !== 'section')
    .map((row) => row.children.filter((child) => typeof child !== 'string').map((cell) => textOf(cell)))
    .slice(1);
}

describe('the page', () => {
  it('is well-formed, with every id once and every reference to one that exists', () => {
    const all = elements(PAGE);
    const ids = all.flatMap(({ attributes }) => attributes.get('id') ?? []);
    expect(new Set(ids).size).toBe(ids.length);
    const references = all.flatMap(({ attributes }) => [
      ...(attributes.get('aria-labelledby') ?? '').split(' ').filter((id) => id !== ''),
      ...(attributes.get('href')?.startsWith('#') ? [attributes.get('href')!.slice(1)] : []),
      ...(attributes.get('data-copy') === undefined ? [] : [attributes.get('data-copy')!]),
    ]);
    expect(references.length).toBeGreaterThan(20);
    expect(references.filter((id) => !ids.includes(id))).toEqual([]);
  });

  it('loads nothing, and its policy forbids that it could', () => {
    const all = elements(PAGE);
    for (const { name, attributes } of all) {
      expect(['img', 'link', 'iframe', 'object', 'embed', 'base', 'form', 'use', 'image']).not.toContain(
        name,
      );
      for (const attribute of ['src', 'srcset', 'action', 'data', 'poster', 'style']) {
        expect(attributes.has(attribute), `${name} ${attribute}`).toBe(false);
      }
      expect(attributes.get('href') ?? '#').toMatch(/^#/);
      for (const attribute of attributes.keys()) expect(attribute).not.toMatch(/^on/i);
    }
    const [style] = elements(PAGE, 'style');
    expect(style!.children.join('')).not.toMatch(/url\(|@import|@font-face/);
    const policy = elements(PAGE, 'meta').find(({ attributes }) => attributes.has('http-equiv'));
    expect(policy?.attributes.get('content')).toMatch(
      /^default-src 'none'; .*script-src 'sha256-[\w+/]+={0,2}'/,
    );
  });

  it('carries a script that is JavaScript', () => {
    const [script] = elements(PAGE, 'script');
    const source = script!.children.join('');
    expect(() => new Function(source)).not.toThrow();
    expect(source).not.toMatch(/fetch\(|XMLHttpRequest|import\(|https?:/);
  });

  it('is the same, byte for byte, for the same document', () => {
    expect(renderReportPage(madeUpReport()) === PAGE).toBe(true);
    expect(renderReportPage(JSON.parse(JSON.stringify(REPORT))) === PAGE).toBe(true);
  });

  it('describes every drawing and every table', () => {
    for (const drawing of elements(PAGE, 'svg')) {
      if (drawing.attributes.get('aria-hidden') === 'true') continue;
      expect(drawing.attributes.get('role')).toBe('img');
      const label = drawing.attributes.get('aria-label');
      if (label !== undefined) expect(label).not.toBe('');
      else {
        const titled = drawing.children.filter(
          (child): child is Element => typeof child !== 'string' && ['title', 'desc'].includes(child.name),
        );
        expect(titled.map(({ name }) => name)).toEqual(['title', 'desc']);
        for (const child of titled) expect(textOf(child)).not.toBe('');
      }
    }
    for (const table of elements(PAGE, 'table')) {
      const parts = descendants(table);
      expect(parts[0]?.name).toBe('caption');
      expect(parts.filter(({ name, attributes }) => name === 'th' && !attributes.has('scope'))).toEqual([]);
      const [head, ...rows] = parts.filter(({ name }) => name === 'tr');
      const width = head!.children.length;
      for (const row of rows) {
        const span = row.children.reduce(
          (sum, cell) => sum + Number(typeof cell === 'string' ? 0 : (cell.attributes.get('colspan') ?? 1)),
          0,
        );
        expect(span, table.attributes.get('id')).toBe(width);
      }
    }
  });
});

describe('what the page shows', () => {
  it('every row on every kind of text, with its interval', () => {
    const shown = cells(byId(PAGE, 'rows'));
    expect(shown).toHaveLength(REPORT.evaluation.rows.length);
    for (const row of REPORT.evaluation.rows.filter(({ id }) => id !== 'original')) {
      const line = shown.find(
        (own) =>
          own[0]!.includes(row.name) && own[2]!.includes(excess(row.excess)) && own[1] === String(row.steps),
      );
      expect(line, row.id).toBeDefined();
      for (const [i, kind] of row.kinds.entries()) {
        expect(line![3 + i]).toContain(excess(kind.excess));
        expect(line![3 + i]).toContain(
          `${excess(kind.excessInterval!.low)} to ${excess(kind.excessInterval!.high)}`,
        );
      }
    }
    for (const [i, kind] of REPORT.evaluation.kinds.entries()) {
      expect(cells(byId(PAGE, `kind-${i}`))).toHaveLength(REPORT.evaluation.rows.length);
      expect(textOf(byId(PAGE, `kind-${i}`))).toContain(kind);
    }
  });

  it('the best of each column in words and sign, once without and once with recovery', () => {
    const marked = cells(byId(PAGE, 'rows')).filter((line) => line[2]!.includes('★'));
    expect(marked.map(([name]) => name!.trim())).toEqual(['This plan', 'This plan']);
    for (const line of marked) expect(line[2]).toMatch(/★ .*\(least\)/);
    const worse = madeUpReport();
    worse.evaluation.rows.find(({ id }) => id === 'uniform-recovered')!.excess = 0.01;
    const page = renderReportPage(worse);
    const names = cells(byId(page, 'rows'))
      .filter((line) => line[2]!.includes('★'))
      .map(([name]) => name!.trim());
    expect(names).toEqual(['This plan', 'Uniform pairs, as in the paper']);
    expect(page.includes('less is lost by Uniform pairs, as in the paper with recovery')).toBe(true);
  });

  it('a kind that is reported beside the others, which the mean leaves out', () => {
    const report = madeUpReport();
    report.evaluation.rows = report.evaluation.rows.map((row) => ({
      ...row,
      kinds: row.kinds.map((kind) => (kind.kind === 'code' ? { ...kind, beside: true } : kind)),
    }));
    const table = byId(renderReportPage(report), 'rows');
    const heads = descendants(table).filter(({ attributes }) => attributes.get('scope') === 'col');
    expect(heads.map(textOf).filter((name) => name.includes('not in the mean'))).toEqual([
      'codenot in the mean',
    ]);
    const [first, second] = report.evaluation.rows[1]!.kinds;
    expect(cells(table)[1]![6]).toBe(share((first!.top1 + second!.top1) / 2));
  });

  it('why a row has no recovered form', () => {
    expect(textOf(byId(PAGE, 'note-1'))).toBe(
      'Every other layer skipped: a skipped layer has no matrix to refit',
    );
  });

  it('every candidate, as a point and as a row', () => {
    expect(REPORT.candidates.length).toBeGreaterThan(100);
    const [head] = descendants(byId(PAGE, 'candidates')).filter(({ name }) => name === 'tr');
    const columns = descendants(head!).map((cell) => textOf(cell));
    const rows = cells(byId(PAGE, 'candidates'));
    const titles = elements(PAGE, 'title').map(textOf);
    const filled = rows.flatMap((row) => row.slice(1).filter((cell) => cell !== ''));
    expect(filled).toHaveLength(REPORT.candidates.length);
    for (const { layers, bypass, kl, crossEntropy } of REPORT.candidates) {
      const range = `${layers[0]}–${layers.at(-1)}`;
      const change = `${crossEntropy < 0 ? '' : '+'}${nats(crossEntropy)}`;
      const cell = rows.find((row) => row[0] === range)?.[columns.indexOf(bypassName(bypass))];
      expect(cell).toContain(`${nats(kl)} (${change})`);
      const title = `Layers ${range}, ${bypassName(bypass)}: KL ${nats(kl)}, cross-entropy ${change} nats a token`;
      expect(titles.includes(title), title).toBe(true);
    }
    const taken = rows.filter((row) => row.some((cell) => cell.includes('✓'))).map((row) => row[0]);
    expect(taken).toEqual(REPORT.plan.groups.map(({ layers }) => `${layers[0]}–${layers.at(-1)}`));
    expect(filled.filter((cell) => cell.includes('✓'))).toHaveLength(REPORT.plan.groups.length);
  });

  it('the plan, a column a step', () => {
    const stack = elements(PAGE, 'ol').find(({ attributes }) => attributes.get('class') === 'stack')!;
    const labels = descendants(stack)
      .filter(({ name }) => name === 'svg')
      .map(({ attributes }) => attributes.get('aria-label'));
    expect(labels).toHaveLength(planSteps(REPORT.plan).length);
    expect(labels[0]).toBe('Layer 0');
    expect(labels[12]).toBe('Layers 12 and 13 at the same time, bypass distance 1');
    const bypasses = descendants(stack).filter(({ attributes }) => attributes.get('class') === 'bypass');
    expect(bypasses).toHaveLength(REPORT.plan.groups.length);
  });

  it.each([
    [0, 0],
    [1, 3],
    [2, 5],
    [3, 6],
    [9, 6],
    ['full', 12],
  ] as const)('bypass %s of a group of four as %d lines', (bypass, lines) => {
    const report = {
      ...madeUpReport(),
      plan: { version: 1 as const, layers: 30, groups: [{ layers: [4, 5, 6, 7], bypass }] },
    };
    const drawn = elements(renderReportPage(report)).filter(
      ({ attributes }) => attributes.get('class') === 'bypass',
    );
    expect(drawn).toHaveLength(lines);
  });

  it('the similarity, cell by cell for the script, as colours, and as a table', () => {
    const map = elements(PAGE).find(({ attributes }) => attributes.get('class') === 'heat')!;
    const values = map.attributes
      .get('data-values')!
      .split(';')
      .map((row) => row.split(' ').map(Number));
    expect(values).toHaveLength(31);
    expect(values[3]![4]).toBeCloseTo(REPORT.similarity![3]![4]!, 4);
    expect(descendants(map).filter(({ attributes }) => attributes.get('class') === 'frame')).toHaveLength(8);
    expect(cells(byId(PAGE, 'neighbours'))[3]!.slice(0, 2)).toEqual([
      '3',
      REPORT.similarity![3]![4]!.toFixed(4),
    ]);
  });

  it('refusals with their reason, texts with their hashes, and how to make it again', () => {
    const steps = cells(byId(PAGE, 'recovery-steps'));
    expect(steps).toHaveLength(8);
    expect(steps[5]!.at(-1)).toBe('✕ refused: held-out error rose');
    expect(steps.filter((step) => step.at(-1) === 'kept')).toHaveLength(7);
    const texts = textOf(byId(PAGE, 'texts'));
    for (const set of Object.values(REPORT.texts)) {
      for (const { sha256, spec } of set) {
        expect(texts).toContain(sha256);
        expect(texts).toContain(spec);
      }
    }
    expect(textOf(byId(PAGE, 'command'))).toBe(REPORT.command);
    expect(textOf(byId(PAGE, 'timings'))).toContain('costs of candidates');
    expect(textOf(byId(PAGE, 'notes'))).toContain(REPORT.notes[0]);
    expect(textOf(byId(PAGE, 'model'))).toContain(REPORT.result!.sha256);
  });

  it('what differs in a sample', () => {
    expect(elements(PAGE, 'u').map(textOf)).toEqual([
      'light of all colours in many ways. (Made up for a test.)',
    ]);
    expect(PAGE.includes('The same to the last character.')).toBe(true);
  });
});

describe('a page of little', () => {
  /** Only what the format cannot do without. */
  const bare = (): OptimizeReport => {
    const { similarity: _, result: __, versions: ___, ...report } = madeUpReport();
    return {
      ...report,
      plan: { version: 1, layers: 30, groups: [] },
      candidates: [],
      front: [],
      recovery: [],
      samples: [],
      notes: [],
      timings: [],
      texts: { calibration: [], development: [], evaluation: [] },
      evaluation: { kinds: [], rows: [] },
    };
  };

  it('has no empty sections and no links to any', () => {
    const page = renderReportPage(bare());
    expect(elements(page, 'section').map(({ attributes }) => attributes.get('id'))).toEqual([
      'plan',
      'origin',
    ]);
    expect(elements(page, 'a').map(({ attributes }) => attributes.get('href'))).toEqual(['#plan', '#origin']);
    expect(page.includes('The planned model was not evaluated.')).toBe(true);
    expect(slips(page)).toEqual([]);
  });

  it.each(['similarity', 'recovery', 'front', 'costs', 'samples', 'notes', 'evaluation'])(
    'leaves out %s alone',
    (id) => {
      const empty: Partial<OptimizeReport> = {
        recovery: [],
        front: [],
        samples: [],
        notes: [],
        evaluation: { kinds: [], rows: [] },
      };
      const report = { ...madeUpReport(), ...(id === 'costs' ? { candidates: [] } : {}) };
      const field = id as keyof OptimizeReport;
      const cut =
        id === 'similarity'
          ? (({ similarity: _, ...rest }) => rest)(report)
          : { ...report, ...(id in empty ? { [field]: empty[field] } : {}) };
      const page = renderReportPage(cut as OptimizeReport);
      const ids = elements(page, 'section').map(({ attributes }) => attributes.get('id'));
      expect(ids).not.toContain(id);
      expect(ids).toHaveLength(8);
      expect(slips(page)).toEqual([]);
    },
  );

  it('of rows without intervals, items or generations has no such columns', () => {
    const report = madeUpReport();
    report.evaluation.rows = report.evaluation.rows.map(
      ({ id, name, steps, recovered, kinds, excess: total }) => ({
        id,
        name,
        steps,
        recovered,
        excess: total,
        kinds: kinds.map(({ interval: _, excessInterval: __, klInterval: ___, ...kind }) => kind),
      }),
    );
    const page = renderReportPage(report);
    expect(cells(byId(page, 'rows'))[1]).toHaveLength(7);
    expect(page.includes('class="whisker')).toBe(false);
    expect(slips(page)).toEqual([]);
  });

  it('holds numbers that no model should give', () => {
    const report = madeUpReport();
    report.candidates[0]!.kl = 0;
    report.candidates[1]!.kl = -1e-9;
    report.front[0]!.excess = -0.03;
    report.evaluation.rows[1]!.excess = 1e9;
    report.evaluation.rows[2]!.excess = -0.02;
    const page = renderReportPage(report);
    expect(slips(page)).toEqual([]);
    expect(page.includes('no higher than the original&#39;s')).toBe(true);
    expect(elements(page).length).toBeGreaterThan(1000);
  });
});

describe('texts of strangers', () => {
  const BAD = `</script><script>alert("1" + '2')</script> & <img src=x onerror=alert(1)> \u0000`;

  /** The same document with every string that is not a key of the format replaced. */
  function poisoned<T>(value: T, key = ''): T {
    if (typeof value === 'string') return (key === 'bypass' ? value : BAD) as T;
    if (Array.isArray(value)) return value.map((item) => poisoned(item, key)) as T;
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, field]) => [name, poisoned(field, name)]),
    ) as T;
  }

  it('stay text wherever they stand', () => {
    const page = renderReportPage(poisoned(madeUpReport()));
    const all = elements(page);
    expect(all.filter(({ name }) => name === 'script')).toHaveLength(1);
    expect(all.filter(({ name }) => name === 'img')).toEqual([]);
    expect(all.some(({ attributes }) => [...attributes.keys()].some((name) => name.startsWith('on')))).toBe(
      false,
    );
    const shown = textOf(parseMarkup(page));
    expect(shown.split('<img src=x onerror=alert(1)>').length).toBeGreaterThan(30);
    expect(page.includes('\u0000')).toBe(false);
  });

  it('of any form leave the page well-formed', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (a, b) => {
        const report = madeUpReport(20);
        report.model.name = a;
        report.command = b;
        report.samples = [{ prompt: a, original: a + b, planned: b + a }];
        report.evaluation.rows[1]!.name = b;
        report.machine = a;
        const tree = parseMarkup(renderReportPage(report));
        expect(descendants(tree).filter(({ name }) => name === 'script')).toHaveLength(1);
      }),
      { numRuns: 30 },
    );
  });
});
