import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ToolFormat } from '../model.js';
import { type ToolEvent, toolParser } from './parser.js';

/** What a text in pieces comes to: what is said, and the calls. */
function run(format: ToolFormat, pieces: readonly string[], names: readonly string[] = ['f', 'g']) {
  const parser = toolParser(format, names);
  const events: ToolEvent[] = [...pieces.flatMap((piece) => parser.push(piece)), ...parser.end()];
  let text = '';
  const calls: { name: string; arguments: string }[] = [];
  for (const event of events) {
    if (event.kind === 'text') text += event.text;
    else if (event.kind === 'call') {
      expect(event.index).toBe(calls.length);
      calls.push({ name: event.name, arguments: '' });
    } else calls[event.index]!.arguments += event.text;
  }
  return { text, calls, events };
}

const letters = (text: string) => [...text];
const name = fc.stringMatching(/^[a-zA-Z0-9_-]{1,12}$/);
const call = fc.record({ name, arguments: fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 })) });
/** Cuts a text into pieces. */
const cut = (text: string, sizes: readonly number[]) => {
  const pieces: string[] = [];
  let left = text;
  for (const size of sizes) {
    pieces.push(left.slice(0, size));
    left = left.slice(size);
  }
  return [...pieces, left];
};

describe('calls between tags', () => {
  it('are taken out of the text', () => {
    const text =
      'I look.\n<tool_call>\n{"name": "f", "arguments": {"a": [1, "}"]}}\n</tool_call>\n<tool_call>{"arguments": {}, "name": "g"}</tool_call>';
    for (const pieces of [[text], letters(text)]) {
      expect(run('hermes', pieces)).toMatchObject({
        text: 'I look.\n',
        calls: [
          { name: 'f', arguments: '{"a": [1, "}"]}' },
          { name: 'g', arguments: '{}' },
        ],
      });
    }
  });

  it('tell of arguments while they are written', () => {
    const { events } = run('hermes', ['<tool_call>{"name":"f","arguments":{"a"', ':1', '}}']);
    expect(events).toEqual([
      { kind: 'call', index: 0, name: 'f' },
      { kind: 'arguments', index: 0, text: '{"a"' },
      { kind: 'arguments', index: 0, text: ':1' },
      { kind: 'arguments', index: 0, text: '}' },
    ]);
  });

  it('reads arguments that are JSON in a string', () => {
    const { calls } = run(
      'hermes',
      letters('<tool_call>{"name":"f","arguments":"{\\"a\\": 1}"}</tool_call>'),
    );
    expect(calls).toEqual([{ name: 'f', arguments: '{"a": 1}' }]);
  });

  it.each([
    '<tool_call>nonsense</tool_call>',
    '<tool_call>{"name": 3}',
    '<tool_call>{}</tool_call>',
    '<tool_ca',
    'a < b',
  ])('leave %j as text', (text) => {
    expect(run('hermes', letters(text))).toMatchObject({ text, calls: [] });
    expect(run('hermes', [text])).toMatchObject({ text, calls: [] });
  });

  it('are found however the text is cut', () => {
    fc.assert(
      fc.property(
        fc.array(call, { maxLength: 3 }),
        fc.array(fc.nat(9)),
        fc.string(),
        (calls, sizes, said) => {
          fc.pre(!said.includes('<'));
          const text =
            said + calls.map((one) => `<tool_call>\n${JSON.stringify(one)}\n</tool_call>`).join('\n');
          const found = run('hermes', cut(text, sizes));
          expect(found.text).toBe(said);
          expect(found.calls).toEqual(
            calls.map((one) => ({ name: one.name, arguments: JSON.stringify(one.arguments) })),
          );
        },
      ),
    );
  });
});

describe('an answer that is a call', () => {
  it.each<[ToolFormat, string]>([
    ['llama', '{"name": "f", "parameters": {"a": 1}}'],
    ['llama', '<|python_tag|>{"name": "f", "parameters": {"a": 1}}'],
    ['mistral', '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]'],
    ['mistral', '[{"name": "f", "arguments": {"a": 1}}'],
  ])('is read (%s %j)', (format, text) => {
    for (const pieces of [[text], letters(text)]) {
      expect(run(format, pieces)).toMatchObject({ text: '', calls: [{ name: 'f', arguments: '{"a": 1}' }] });
    }
  });

  it('may be several', () => {
    const text = '[TOOL_CALLS][{"name":"f","arguments":{}}, {"name":"g","arguments":{"x":[]}}]';
    expect(run('mistral', letters(text)).calls).toEqual([
      { name: 'f', arguments: '{}' },
      { name: 'g', arguments: '{"x":[]}' },
    ]);
  });

  it.each(['{"name": "other", "parameters": {}}', '{"a": 1}', 'Hello {"name": "f"}', ' [1]', '{', ''])(
    'is no call: %j',
    (text) => {
      for (const pieces of [[text], letters(text)]) {
        expect(run('llama', pieces)).toMatchObject({ text, calls: [] });
      }
    },
  );

  it('never fails, whatever comes', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<ToolFormat>('hermes', 'llama', 'mistral'),
        fc.array(
          fc.oneof(
            fc.string(),
            fc.constantFrom('<tool_call>', '{"name":"f"', '}', '{', '[', '"', ',"arguments":'),
          ),
        ),
        (format, pieces) => {
          run(format, pieces);
        },
      ),
    );
  });
});
