import { describe, expect, it } from 'vitest';
import { type PartitionManifest, readManifest } from './manifest.js';

const good: PartitionManifest = {
  version: 1,
  model: '../model/model.onnx',
  weights: { folder: '../model', files: [{ path: 'model.onnx.data', bytes: 10 }] },
  devices: ['cpu:0', 'cpu:1'],
  inputs: ['input_ids'],
  outputs: ['logits'],
  parts: [
    {
      name: 'first',
      file: 'parts/first.onnx',
      devices: ['cpu:0'],
      holds: 'the embedding',
      inputs: [{ name: 'input_ids' }],
      outputs: ['x'],
    },
    {
      name: 'last',
      file: 'parts/last.onnx',
      devices: ['cpu:1'],
      holds: 'the head',
      inputs: [{ name: 'x', from: 'first' }],
      outputs: ['logits'],
    },
  ],
  shapes: { x: ['batch', 'sequence', 8] },
  groups: [{ layers: [0, 1], bypass: 'full', exchanges: 2 }],
};

const [first, last] = good.parts as [PartitionManifest['parts'][0], PartitionManifest['parts'][0]];

describe('readManifest', () => {
  it('reads what was written', () => {
    expect(readManifest(JSON.parse(JSON.stringify(good)))).toEqual({ manifest: good });
  });

  it.each<[string, unknown, RegExp]>([
    ['no object', 7, /the document/],
    ['another version', { ...good, version: 2 }, /version/],
    ['a field too many', { ...good, more: 1 }, /document/],
    ['a device that is none', { ...good, devices: ['cpu'] }, /devices\.0: a device is written as cpu:0/],
    ['a name twice', { ...good, parts: [first, { ...last, name: 'first' }] }, /two parts "first"/],
    ['a device that is not listed', { ...good, devices: ['cpu:0'] }, /"last" is on cpu:1/],
    ['an input of nobody', { ...good, inputs: ['ids'] }, /"input_ids" is no input/],
    ['parts that wait for later ones', { ...good, parts: [last, first] }, /reads "x" from "first"/],
    ['an output of nobody', { ...good, outputs: ['logits', 'y'] }, /no part makes the output "y"/],
  ])('refuses %s', (_, document, wrong) => {
    expect(readManifest(document)).toEqual({ wrong: expect.stringMatching(wrong) });
  });
});
