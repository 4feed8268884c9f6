import { type Bypass, type Plan, sequentialSteps } from '@cqil/core';
import type { EvaluationRow, KindResult, OptimizeReport } from '../../optimize/document.js';

/**
 * A report with the shape of a real one and numbers made up by formulas. Nothing in it was measured; it exists for
 * tests alone, and says so in its texts.
 */
export function madeUpReport(layers = 30): OptimizeReport {
  const plan = planOf(layers, range(layers - 18, 8, 2), 1);
  return {
    version: 1,
    created: '2026-01-02T03:04:05.000Z',
    tool: { name: 'cqil', version: '0.0.0-made-up' },
    versions: [
      { name: 'Node.js', version: '20.0.0' },
      { name: 'onnxruntime-node', version: '1.0.0' },
    ],
    command: `cqil optimize models/made-up-135m --dtype q4 --steps ${sequentialSteps(plan)} --out models/made-up-135m-cqil`,
    machine: 'made-up machine: 2 cores, 8 GB, linux x64',
    timings: [
      { step: 'probe', seconds: 8.2 },
      { step: 'costs of candidates', seconds: 412 },
      { step: 'search', seconds: 96.4 },
      { step: 'recovery', seconds: 171 },
      { step: 'evaluation', seconds: 260 },
    ],
    model: {
      name: 'Made-up-135M-Instruct',
      graph: 'onnx/model_q4.onnx',
      dtype: 'q4',
      sha256: hex(1),
      layers,
      hidden: 576,
      repository: 'made-up/Made-up-135M-Instruct',
      license: 'apache-2.0',
    },
    result: { graph: 'onnx/model_q4.onnx', sha256: hex(2) },
    texts: {
      calibration: KINDS.map((kind, i) => text(kind, 'calibration', 12_000 + 500 * i, i)),
      development: KINDS.map((kind, i) => text(kind, 'development', 2_048, 10 + i)),
      evaluation: KINDS.map((kind, i) => text(kind, 'evaluation', 4_096 + 37 * i, 20 + i)),
    },
    plan,
    target: `at most ${sequentialSteps(plan)} sequential steps`,
    similarity: similarity(layers),
    candidates: candidates(layers),
    front: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((pairs) => ({
      steps: layers - pairs,
      plan: planOf(layers, range(layers - 2 - 2 * pairs, pairs, 2), 1),
      kl: 0.012 * pairs + 0.006 * pairs ** 2,
      excess: Math.expm1(0.015 * pairs + 0.007 * pairs ** 2),
    })),
    recovery: plan.groups.map((group, i) => ({
      layers: [...group.layers],
      matrix: i === 5 ? 'o' : 'down',
      ...(i === 5 ? {} : { lambda: 10 ** (i % 3) }),
      before: 0.31 + 0.09 * Math.sin(i * 2.1),
      after: i === 5 ? 0.402 : (0.31 + 0.09 * Math.sin(i * 2.1)) * (0.55 + 0.04 * i),
      kept: i !== 5,
      ...(i === 5 ? { reason: 'held-out error rose' } : {}),
    })),
    evaluation: { kinds: [...KINDS], rows: rows(layers, sequentialSteps(plan)) },
    samples: [
      {
        prompt: 'Explain in two sentences why the sky is blue.',
        original:
          'The sky looks blue since air scatters short waves more than long ones. (Made up for a test.)',
        planned:
          'The sky looks blue since air scatters light of all colours in many ways. (Made up for a test.)',
      },
      { prompt: 'Count to three.', original: 'One, two, three.', planned: 'One, two, three.' },
    ],
    notes: [
      'All numbers of this report are made up.',
      'On one CPU the branches of a group run one after the other: there is no gain in time.',
    ],
  };
}

const KINDS = ['prose', 'documentation', 'code'] as const;

function range(start: number, groups: number, size: number): number[][] {
  return Array.from({ length: groups }, (_, g) =>
    Array.from({ length: size }, (_, i) => start + g * size + i),
  );
}

function planOf(layers: number, groups: readonly number[][], bypass: Bypass): Plan {
  return { version: 1, layers, groups: groups.map((own) => ({ layers: own, bypass })) };
}

function text(kind: string, set: string, tokens: number, seed: number) {
  return { kind, spec: `texts/made-up-${set}-${kind}.txt`, sha256: hex(seed + 3), tokens };
}

/** 64 hexadecimal digits that differ between seeds. */
function hex(seed: number): string {
  return Array.from({ length: 64 }, (_, i) => ((seed * 7 + i * i * 5 + i * seed) % 16).toString(16)).join('');
}

/** Alike in the middle, less so at both ends, and the embedding unlike all. */
function similarity(layers: number): number[][] {
  const depth = (i: number) => 1.6 * Math.log1p(i) + (i === layers ? 0.6 : 0);
  return Array.from({ length: layers + 1 }, (_, i) =>
    Array.from({ length: layers + 1 }, (_, j) =>
      Number(Math.exp(-0.9 * (depth(i) - depth(j)) ** 2 - (i === j ? 0 : 0.01)).toFixed(6)),
    ),
  );
}

function candidates(layers: number): OptimizeReport['candidates'] {
  const list: OptimizeReport['candidates'] = [];
  for (const size of [2, 3, 4]) {
    const distances: Bypass[] = size === 2 ? [0, 1, 'full'] : [0, 1, size - 1, 'full'];
    for (let first = 0; first + size <= layers; first++) {
      for (const bypass of distances) {
        const kl =
          klOf(first, size, layers) * (bypass === 'full' ? 1.6 : bypass === 0 ? 1.35 : 1 + 0.04 * bypass);
        list.push({
          layers: Array.from({ length: size }, (_, i) => first + i),
          bypass,
          kl,
          crossEntropy: kl * 0.9 - 0.01,
        });
      }
    }
  }
  return list;
}

/** Dear at both ends, cheap from the middle on, with some unevenness. */
function klOf(first: number, size: number, layers: number): number {
  const early = 6 * Math.exp(-first * 0.9);
  const late = 1.4 * Math.exp(-(layers - size - first) * 1.3);
  const wave = 1 + 0.35 * Math.sin(first * 1.7 + size);
  return (0.03 * wave + early + late) * (size - 1) ** 1.6;
}

/** The original, ours, and three baselines at equal steps: eight rows, the last noted. */
function rows(layers: number, steps: number): EvaluationRow[] {
  const row = (
    id: string,
    name: string,
    level: number,
    recovered: boolean,
    note?: string,
  ): EvaluationRow => ({
    id,
    name,
    steps: id === 'original' ? layers : steps,
    recovered,
    kinds: KINDS.map((kind, i) => result(kind, i, id === 'original' ? 0 : level * (0.8 + 0.2 * i))),
    excess: id === 'original' ? 0 : Math.expm1(level),
    generation: { prompts: 8, length: 64, agreed: 64 / (1 + 4 * level) },
    items: [
      { kind: 'facts', right: Math.round(30 / (1 + level)), total: 40 },
      { kind: 'grammar', right: Math.round(36 / (1 + level * 0.6)), total: 40 },
    ],
    ...(note === undefined ? {} : { note }),
  });
  return [
    row('original', 'Original', 0, false),
    row('ours', 'This plan', 0.47, false),
    row('ours-recovered', 'This plan', 0.21, true),
    row('uniform', 'Uniform pairs, as in the paper', 0.55, false),
    row('uniform-recovered', 'Uniform pairs, as in the paper', 0.27, true),
    row('full-wide', 'Uniform pairs, full bypass', 0.66, false),
    row('full-wide-recovered', 'Uniform pairs, full bypass', 0.28, true),
    row('skip-alternate', 'Every other layer skipped', 2.4, false, 'a skipped layer has no matrix to refit'),
  ];
}

function result(kind: string, index: number, level: number): KindResult {
  const base = [48.7, 21.3, 9.6][index]!;
  const perplexity = base * Math.exp(level);
  return {
    kind,
    tokens: 4_096 + 37 * index,
    perplexity,
    interval: { low: perplexity * 0.93, high: perplexity * 1.08 },
    excess: Math.expm1(level),
    ...(level === 0
      ? {}
      : { excessInterval: { low: Math.expm1(level * 0.88), high: Math.expm1(level * 1.13) } }),
    kl: level * 0.8,
    ...(level === 0 ? {} : { klInterval: { low: level * 0.72, high: level * 0.89 } }),
    top1: level === 0 ? 1 : 0.9 / (1 + level),
  };
}
