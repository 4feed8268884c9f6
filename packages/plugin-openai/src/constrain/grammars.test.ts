import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { JsonSchema } from '../model.js';
import { Vocabulary } from '../text/vocabulary.js';
import { Grammars } from './grammars.js';

/** One token for each byte, after one that ends the text; and some of several bytes. */
const BYTES = Array.from({ length: 256 }, (_, byte) => {
  const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  return printable ? byte : undefined;
});
let stand = 256;
const letters = BYTES.map((byte) => String.fromCodePoint(byte ?? stand++));
const words = ['</s>', ...letters, '":', '{"', 'true', 'null}', ',Ġ"'];
const vocabulary = new Vocabulary({
  model: { vocab: Object.fromEntries(words.map((word, id) => [word, id])) },
  added_tokens: [{ id: 0, content: '</s>', special: true }],
  decoder: { type: 'ByteLevel' },
});
const END = 0;
let grammars: Grammars;

beforeAll(() => {
  grammars = new Grammars(vocabulary, words.length + 3, [END]);
});

/** A text that the grammar allows, by choices that `random` makes; ends as soon as it may, with some probability. */
async function write(schema: JsonSchema, random: () => number, most = 400): Promise<string | undefined> {
  const constraint = await grammars.constrain(schema);
  const bytes: number[] = [];
  try {
    for (let i = 0; i < most; i++) {
      const mask = constraint.allowed();
      const allowed = words.flatMap((_, id) => (((mask[id >> 5] ?? 0) >>> (id & 31)) & 1 ? [id] : []));
      expect(allowed, `${JSON.stringify(schema)} behind ${Buffer.from(bytes)}`).not.toEqual([]);
      // What closes is taken more often, or strings and lists would never end.
      const closing = allowed.filter((id) => id === END || '"]}'.includes(words[id]!));
      const from = closing.length > 0 && random() < 0.4 ? closing : allowed;
      const id = from.includes(END) && random() < 0.7 ? END : from[Math.floor(random() * from.length)]!;
      constraint.accept(id);
      if (id === END) return Buffer.from(bytes).toString('utf8');
      bytes.push(...vocabulary.bytes(id));
      await constraint.settle();
    }
    return undefined;
  } finally {
    constraint.dispose();
  }
}

function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const leaf: fc.Arbitrary<JsonSchema> = fc.oneof(
  fc.constantFrom<JsonSchema>(
    { type: 'string' },
    { type: 'integer' },
    { type: 'number' },
    { type: 'boolean' },
    { type: 'null' },
    { type: ['string', 'null'] },
    { type: 'string', pattern: '^[A-Z]{2,3}-\\d+(?:\\.[^x"]|"q")?$' },
    { type: 'string', pattern: 'a.c|\\W{2}\\\\' },
    { type: 'string', format: 'date-time' },
    { type: 'string', format: 'uuid' },
    { type: 'object' },
    {},
  ),
  fc.array(fc.jsonValue({ maxDepth: 1 }), { minLength: 1, maxLength: 3 }).map((values) => ({ enum: values })),
  fc
    .tuple(fc.nat(4), fc.nat(4))
    .map(([least, more]) => ({ type: 'string', minLength: least, maxLength: least + more })),
  fc
    .tuple(fc.integer({ min: -3000, max: 3000 }), fc.nat(4000), fc.constantFrom('integer', 'number'))
    .map(([low, size, type]): JsonSchema => ({ type, minimum: low, maximum: low + size })),
  fc
    .tuple(
      fc.integer({ min: -99, max: 99 }),
      fc.integer({ min: 2, max: 200 }),
      fc.constantFrom('integer', 'number'),
    )
    .map(([low, size, type]): JsonSchema => ({ type, exclusiveMinimum: low, exclusiveMaximum: low + size })),
  fc.constantFrom<JsonSchema>({ type: 'number', exclusiveMinimum: 0 }, { type: 'integer', maximum: -7.5 }),
);
const schemas = fc.letrec<{ schema: JsonSchema }>((tie) => ({
  schema: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc
      .tuple(fc.dictionary(fc.string({ maxLength: 5 }), tie('schema'), { maxKeys: 4 }), fc.nat(15))
      .map(([properties, bits]): JsonSchema => {
        const required = Object.keys(properties).filter((_, i) => (bits >> i) & 1);
        return { type: 'object', properties, required, additionalProperties: false };
      }),
    tie('schema').map((additionalProperties) => ({ type: 'object', additionalProperties })),
    fc
      .tuple(tie('schema'), fc.nat(2), fc.nat(2))
      .map(([items, least, more]) => ({ type: 'array', items, minItems: least, maxItems: least + more })),
    fc.array(tie('schema'), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
    tie('schema').map((item) => ({ $ref: '#/$defs/x', $defs: { x: item } })),
    fc.array(tie('schema'), { minLength: 1, maxLength: 3 }).map((prefixItems) => ({
      type: 'array',
      prefixItems,
      items: false,
      minItems: prefixItems.length,
    })),
  ),
})).schema;

describe('Grammars', () => {
  it('allow nothing that the schema does not', async () => {
    const ajv = new Ajv2020({ strict: false, validateFormats: false });
    let written = 0;
    await fc.assert(
      fc.asyncProperty(schemas, fc.integer(), async (schema, seed) => {
        // References to definitions below the root are found by nobody.
        fc.pre(!JSON.stringify(schema).slice(1).includes('{"$ref"'));
        const text = await write(schema, seeded(seed));
        if (text === undefined) return;
        written++;
        const value: unknown = JSON.parse(text);
        expect(ajv.validate(schema, value), `${text} by ${JSON.stringify(schema)}`).toBe(true);
      }),
      { numRuns: 150 },
    );
    expect(written).toBeGreaterThan(100);
  });

  it.each<[JsonSchema, string[]]>([
    [{ const: { a: [1, 'é"'] } }, ['{"a":[1,"é\\""]}']],
    [{ enum: ['a', 1, null], type: ['string', 'null'] }, ['"a"', 'null']],
    [{ type: 'integer', minimum: 8, maximum: 11 }, ['8', '9', '10', '11']],
    [{ type: 'number', minimum: 3, maximum: 3 }, ['3']],
    [{ oneOf: [{ const: 'a' }, { const: 2 }] }, ['"a"', '2']],
  ])('allow exactly what %j does', async (schema, texts) => {
    const found = new Set<string>();
    for (let seed = 0; seed < 60; seed++) found.add((await write(schema, seeded(seed * 7919)))!);
    expect([...found].sort()).toEqual([...texts].sort());
  });

  it.each<[string, JsonSchema]>([
    ['not', { not: {} }],
    ['uniqueItems', { type: 'array', uniqueItems: true }],
    ['refers to itself', { $ref: '#' }],
    [
      'refers to itself',
      {
        type: 'object',
        properties: { a: { $ref: '#/$defs/a' } },
        $defs: { a: { items: { $ref: '#/$defs/a' } } },
      },
    ],
    ['within the schema', { $ref: 'https://example.com/schema' }],
    ['which is not there', { $ref: '#/$defs/none' }],
    ['allOf of several', { allOf: [{}, {}] }],
    ['oneOf', { oneOf: [{ type: 'integer' }, { type: 'number' }] }],
    ['beside anyOf', { anyOf: [{}], properties: {} }],
    ['there is no type', { type: 'text' }],
    ['there is no type', { type: 3 }],
    ['allows no value', { enum: [] }],
    ['no such number', { type: 'integer', minimum: 1.1, maximum: 1.9 }],
    ['whole numbers', { type: 'number', minimum: 0.5 }],
    ['more than', { type: 'string', minLength: 1e6 }],
    ['more than', { type: 'array', minItems: 1e9 }],
    ['pattern', { type: 'string', pattern: '(?=a)b' }],
    ['pattern', { type: 'string', pattern: '(a)\\1' }],
    ['pattern', { type: 'string', pattern: '[' }],
    ['pattern', { type: 'string', pattern: 'a{1,100000}' }],
    ['pattern', { type: 'string', pattern: 'x'.repeat(10_000) }],
    ['format', { type: 'string', format: 'regex' }],
    ['multipleOf', { type: 'number', multipleOf: 0.1 }],
    ['does not allow', { type: 'object', required: ['a'], additionalProperties: false }],
    [
      'too large',
      { type: 'object', properties: Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [i, {}])) },
    ],
  ])('refuse what they cannot hold to: %s (%#)', async (what, schema) => {
    await expect(grammars.compile(schema)).rejects.toThrow(what);
  });

  it('are not held up by patterns that are hard for others', async () => {
    const began = performance.now();
    await grammars.compile({ type: 'string', pattern: '^(a+)+$' });
    await grammars.compile({ type: 'string', pattern: '((a|b)*c{0,200}){3,9}' });
    expect(performance.now() - began).toBeLessThan(3000);
  });

  it('take any JSON for a schema, or refuse it, and never fail in another way', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          fc.constantFrom(
            'type',
            'items',
            'properties',
            'enum',
            'anyOf',
            'minimum',
            'pattern',
            'format',
            'required',
            '$ref',
          ),
          fc.jsonValue(),
        ),
        async (schema) => {
          await grammars.compile(schema).catch((cause: Error) => expect(cause.name).toBe('SchemaError'));
        },
      ),
      { numRuns: 300 },
    );
  });
});
