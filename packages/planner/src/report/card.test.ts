import { parsePlan } from '@cqil/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { renderModelCard } from './card.js';
import { excess } from './format.js';
import { code, codeBlock, plain, yamlString } from './markdown.js';
import { madeUpReport } from './testing/made-up-report.js';

const REPORT = madeUpReport();
const CARD = renderModelCard(REPORT);

describe('the card', () => {
  it('starts with what hubs read', () => {
    expect(CARD.slice(0, CARD.indexOf('\n\n'))).toBe(
      [
        '---',
        'library_name: transformers.js',
        'base_model: "made-up/Made-up-135M-Instruct"',
        'license: "apache-2.0"',
        'pipeline_tag: text-generation',
        'tags:',
        '- onnx',
        '- cqil',
        '- layer-parallelism',
        '---',
      ].join('\n'),
    );
    const { repository: _, license: __, ...model } = REPORT.model;
    const card = renderModelCard({ ...REPORT, model });
    expect(card).toContain('base_model: "Made-up-135M-Instruct"\n');
    expect(card).not.toContain('license:');
  });

  it('holds the plan so that it can be read back', () => {
    const block = /```json\n([\s\S]*?)\n```/.exec(CARD)![1]!;
    expect(parsePlan(block)).toEqual(REPORT.plan);
  });

  it('has every row by kind with intervals, hashes, versions, the command and the notes', () => {
    for (const row of REPORT.evaluation.rows.filter(({ id }) => id !== 'original')) {
      const line = CARD.split('\n').find((text) =>
        text.startsWith(`| ${row.name} | ${row.recovered ? 'yes' : 'no'} | 22 |`),
      );
      for (const kind of row.kinds) {
        expect(line).toContain(excess(kind.excess));
        expect(line).toContain(
          `(${excess(kind.excessInterval!.low)} to ${excess(kind.excessInterval!.high)})`,
        );
      }
    }
    for (const text of Object.values(REPORT.texts).flat()) expect(CARD).toContain(`\`${text.sha256}\``);
    expect(CARD).toContain(REPORT.model.sha256);
    expect(CARD).toContain(REPORT.result!.sha256);
    expect(CARD).toContain('onnxruntime-node 1.0.0');
    expect(CARD).toContain(`\`\`\`sh\n${REPORT.command}\n\`\`\``);
    for (const note of REPORT.notes) expect(CARD).toContain(`- ${note}`);
    expect(CARD).toContain('a skipped layer has no matrix to refit');
    expect(CARD).toContain('refused: held-out error rose');
  });

  it('is the same for the same document, and has tables as wide as their heads', () => {
    expect(renderModelCard(madeUpReport())).toBe(CARD);
    const lines = CARD.split('\n');
    for (const [i, line] of lines.entries()) {
      if (!line.startsWith('|') || !lines[i - 1]?.startsWith('|')) continue;
      expect(line.split('|').length).toBe(lines[i - 1]!.split('|').length);
    }
  });

  it('leaves out what there is not', () => {
    const card = renderModelCard({
      ...REPORT,
      recovery: [],
      notes: [],
      timings: [],
      evaluation: { kinds: [], rows: [] },
      texts: { calibration: [], development: [], evaluation: [] },
    });
    expect(card.match(/^## .*/gm)).toEqual(['## The plan', '## Where it comes from']);
    expect(card).not.toMatch(/NaN|undefined/);
  });
});

describe('texts of strangers in Markdown', () => {
  it('are shown as they are', () => {
    expect(plain('a|b <script> [x](y) *c* `d` _e_ & $f$\n# g')).toBe(
      'a\\|b &lt;script&gt; \\[x\\](y) \\*c\\* \\`d\\` \\_e\\_ &amp; \\$f\\$ # g',
    );
    expect(plain('# head')).toBe('\\# head');
    expect(plain('12. list')).toBe('12\\. list');
    expect(code('a`b|c')).toBe('``a`b\\|c``');
    expect(code('`')).toBe('`` ` ``');
    expect(codeBlock('a\n```\nb', 'sh')).toBe('````sh\na\n```\nb\n````');
  });

  it('cannot leave their cell, their span or their line', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(plain(text)).not.toMatch(/[\n<>]/);
        expect(plain(text).replace(/\\./g, '')).not.toMatch(/[|`*_[\]~$]/);
        expect(code(text).replaceAll('\\|', '')).not.toMatch(/[\n|]/);
        const fence = /^`+/.exec(codeBlock(text))![0];
        expect(codeBlock(text).slice(fence.length, -fence.length)).not.toContain(fence);
      }),
    );
  });

  it('in front matter are one quoted scalar on one line', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const scalar = yamlString(text);
        expect(scalar).toMatch(/^"[^\n]*"$/);
        expect(JSON.parse(scalar)).toBe(text);
      }),
    );
    expect(yamlString('a"\n---\nb\u2028')).toBe('"a\\"\\n---\\nb\\u2028"');
  });

  it('do not break the card', () => {
    const report = madeUpReport();
    report.evaluation.rows[1]!.name = 'a | b\n\n# c <script>alert(1)</script>';
    report.model.name = 'x"\n---\n<img src=x>';
    report.command = 'echo ```\n<script>';
    const card = renderModelCard(report);
    expect(card.split('\n').filter((line) => line === '---')).toHaveLength(2);
    expect(card).toContain('| a \\| b # c &lt;script&gt;alert(1)&lt;/script&gt; |');
    expect(card).not.toContain('<img');
    expect(card).toContain('````sh\necho ```\n<script>\n````');
  });
});
