import fc from 'fast-check';
import { describe, expect, expectTypeOf, it } from 'vitest';
import type { z } from 'zod';
import { PlanError } from '../errors.js';
import { PLAN_ERROR_CODES } from './codes.js';
import { parsePlan, validatePlan } from './parse.js';
import type { planSchema } from './schema.js';
import type { Bypass, GroupForm, Plan, PlanGroup } from './types.js';

function errorOf(run: () => unknown): PlanError {
  try {
    run();
  } catch (error) {
    if (error instanceof PlanError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

const group = (layers: unknown, bypass: unknown = 0) => ({ layers, bypass });
const plan = (groups: unknown, rest: object = {}) => ({ version: 1, layers: 30, groups, ...rest });

/** Any valid plan. */
const plans: fc.Arbitrary<Plan> = fc
  .array(
    fc.record({
      gap: fc.nat({ max: 3 }),
      size: fc.integer({ min: 1, max: 5 }),
      bypass: fc.oneof(fc.nat({ max: 6 }), fc.constant<Bypass>('full')),
      form: fc.option(fc.constantFrom<GroupForm[]>('branches', 'wide', 'packed'), { nil: undefined }),
    }),
    { maxLength: 8 },
  )
  .chain((parts) => {
    let layer = 0;
    const groups: PlanGroup[] = [];
    for (const { gap, size, bypass, form } of parts) {
      layer += gap;
      const layers = Array.from({ length: size }, (_, i) => layer + i);
      if (size > 1) groups.push({ layers, bypass, ...(form === undefined ? {} : { form }) });
      layer += size;
    }
    return fc.record(
      {
        version: fc.constant(1 as const),
        layers: fc.integer({ min: Math.max(1, layer), max: layer + 5 }),
        groups: fc.constant(groups),
        provenance: fc.dictionary(
          fc
            .string()
            .filter(
              (key) =>
                key !== '__proto__' && !['tool', 'created', 'model', 'modelHash', 'method'].includes(key),
            ),
          fc.jsonValue({ maxDepth: 3 }).filter((value) => !JSON.stringify(value).includes('__proto__')),
        ),
      },
      { requiredKeys: ['version', 'layers', 'groups'] },
    );
  });

it('has a schema whose type is that of a plan', () => {
  type Parsed = Omit<z.output<typeof planSchema>, '$schema'>;
  expectTypeOf<Parsed>().toExtend<Plan>();
  expectTypeOf<Parsed['groups'][number]['bypass']>().toEqualTypeOf<Bypass>();
  expectTypeOf<Required<Parsed['groups'][number]>['form']>().toEqualTypeOf<GroupForm>();
});

describe('a valid plan', () => {
  it('is read from text and from a value', () => {
    const document = plan([group([12, 13], 1), { layers: [14, 15, 16], bypass: 'full', form: 'wide' }], {
      provenance: { tool: 'x', anything: [1, { deep: null }] },
    });
    expect(parsePlan(document)).toEqual(document);
    expect(parsePlan(JSON.stringify(document), { layers: 30 })).toEqual(document);
    expect(parsePlan(`\uFEFF${JSON.stringify(document)}`)).toEqual(document);
  });

  it('needs no provenance and no groups', () => {
    expect(parsePlan({ version: 1, layers: 1, groups: [] })).toEqual({ version: 1, layers: 1, groups: [] });
  });

  it('may name its schema, for editors', () => {
    expect(parsePlan(plan([], { $schema: './plan.schema.json' }))).toEqual(plan([]));
  });

  it('may list its groups in any order', () => {
    expect(parsePlan(plan([group([8, 9]), group([2, 3])])).groups.map((g) => g.layers)).toEqual([
      [2, 3],
      [8, 9],
    ]);
  });

  it('may hold undefined where a field is optional', () => {
    const document = plan([{ layers: [1, 2], bypass: 0, form: undefined }], { provenance: undefined });
    expect(parsePlan(document)).toEqual(plan([group([1, 2])]));
  });

  it('of any kind survives text and back', () => {
    fc.assert(
      fc.property(plans, (value) => {
        expect(parsePlan(JSON.stringify(value))).toEqual(JSON.parse(JSON.stringify(value)));
        expect(() => validatePlan(value)).not.toThrow();
      }),
    );
  });
});

describe('a bad plan', () => {
  const nested = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`;
  const cases: [
    name: string,
    document: unknown,
    code: keyof typeof PLAN_ERROR_CODES,
    path: string | undefined,
  ][] = [
    ['no JSON', '{"version": 1,', 'PLAN_NOT_JSON', undefined],
    ['empty text', '', 'PLAN_NOT_JSON', undefined],
    ['a list', [], 'PLAN_SCHEMA', ''],
    ['null', null, 'PLAN_SCHEMA', ''],
    ['undefined', undefined, 'PLAN_SCHEMA', ''],
    ['an empty object', {}, 'PLAN_SCHEMA', 'version'],
    ['a later version', { version: 2, steps: [] }, 'PLAN_VERSION', 'version'],
    ['version 0', { version: 0 }, 'PLAN_VERSION', 'version'],
    ['a version in text', plan([], { version: '1' }), 'PLAN_SCHEMA', 'version'],
    ['no number of layers', { version: 1, groups: [] }, 'PLAN_SCHEMA', 'layers'],
    ['no layers', plan([], { layers: 0 }), 'PLAN_SCHEMA', 'layers'],
    ['half a layer', plan([], { layers: 1.5 }), 'PLAN_SCHEMA', 'layers'],
    ['2^63 layers', '{"version":1,"layers":9223372036854775808,"groups":[]}', 'PLAN_SCHEMA', 'layers'],
    ['1e308 layers', plan([], { layers: 1e308 }), 'PLAN_SCHEMA', 'layers'],
    ['1e999 layers', '{"version":1,"layers":1e999,"groups":[]}', 'PLAN_SCHEMA', 'layers'],
    ['no groups', { version: 1, layers: 3 }, 'PLAN_SCHEMA', 'groups'],
    ['groups as an object', plan({}), 'PLAN_SCHEMA', 'groups'],
    ['a group that is a list', plan([[1, 2]]), 'PLAN_SCHEMA', 'groups[0]'],
    ['no bypass', plan([{ layers: [1, 2] }]), 'PLAN_SCHEMA', 'groups[0].bypass'],
    ['a negative bypass', plan([group([1, 2], -1)]), 'PLAN_SCHEMA', 'groups[0].bypass'],
    ['half a bypass', plan([group([1, 2], 0.5)]), 'PLAN_SCHEMA', 'groups[0].bypass'],
    ['an endless bypass', plan([group([1, 2], Number.POSITIVE_INFINITY)]), 'PLAN_SCHEMA', 'groups[0].bypass'],
    ['NaN', plan([group([1, 2], Number.NaN)]), 'PLAN_SCHEMA', 'groups[0].bypass'],
    ['a bypass of 2^63', plan([group([1, 2], 2 ** 63)]), 'PLAN_SCHEMA', 'groups[0].bypass'],
    ['an unknown bypass', plan([group([1, 2], 'Full')]), 'PLAN_SCHEMA', 'groups[0].bypass'],
    ['a form that is not known', plan([{ ...group([1, 2]), form: 'tree' }]), 'PLAN_SCHEMA', 'groups[0].form'],
    ['a misspelt field', plan([{ ...group([1, 2]), from: 'wide' }]), 'PLAN_SCHEMA', 'groups[0].from'],
    ['an unknown field', plan([], { name: 'x' }), 'PLAN_SCHEMA', 'name'],
    ['a layer in text', plan([group([1, '2'])]), 'PLAN_SCHEMA', 'groups[0].layers[1]'],
    ['a negative layer', plan([group([-1, 0])]), 'PLAN_SCHEMA', 'groups[0].layers[0]'],
    ['layers as text', plan([group('1,2')]), 'PLAN_SCHEMA', 'groups[0].layers'],
    ['a group of one', plan([group([1, 2]), group([5])]), 'PLAN_GROUP_TOO_SMALL', 'groups[1].layers'],
    ['a group of none', plan([group([])]), 'PLAN_GROUP_TOO_SMALL', 'groups[0].layers'],
    [
      'a layer past the end',
      plan([group([28, 29]), group([29, 30])]),
      'PLAN_OUT_OF_RANGE',
      'groups[1].layers[1]',
    ],
    ['a gap', plan([group([1, 2]), group([5, 7])]), 'PLAN_NOT_NEIGHBOURS', 'groups[1].layers[1]'],
    ['descending layers', plan([group([6, 5])]), 'PLAN_NOT_NEIGHBOURS', 'groups[0].layers[1]'],
    ['a layer twice', plan([group([5, 5])]), 'PLAN_NOT_NEIGHBOURS', 'groups[0].layers[1]'],
    ['an overlap', plan([group([5, 6]), group([6, 7])]), 'PLAN_OVERLAP', 'groups[1].layers[0]'],
    ['an overlap out of order', plan([group([8, 9]), group([7, 8])]), 'PLAN_OVERLAP', 'groups[1].layers[1]'],
    ['provenance as text', plan([], { provenance: 'me' }), 'PLAN_SCHEMA', 'provenance'],
    ['a tool that is a number', plan([], { provenance: { tool: 1 } }), 'PLAN_SCHEMA', 'provenance.tool'],
    ['a function', plan([], { provenance: { f: () => 1 } }), 'PLAN_SCHEMA', 'provenance.f'],
    ['a bigint', plan([group([1n, 2n])]), 'PLAN_SCHEMA', 'groups[0].layers[0]'],
    ['a date', plan([], { provenance: { created: new Date(0) } }), 'PLAN_SCHEMA', 'provenance.created'],
    ['a map', new Map(), 'PLAN_SCHEMA', ''],
    [
      'a prototype',
      '{"version":1,"layers":3,"groups":[],"provenance":{"a":{"__proto__":{"x":1}}}}',
      'PLAN_SCHEMA',
      'provenance.a.__proto__',
    ],
    ['a prototype on top', '{"__proto__":{},"version":1,"layers":3,"groups":[]}', 'PLAN_SCHEMA', '__proto__'],
    [
      'deep provenance',
      `{"version":1,"layers":3,"groups":[],"provenance":{"a":${nested(5000)}}}`,
      'PLAN_TOO_LARGE',
      'provenance.a[0][0]...',
    ],
    ['a long text', ' '.repeat(16 * 1024 * 1024 + 1), 'PLAN_TOO_LARGE', undefined],
  ];
  it.each(cases)('with %s is refused', (_, document, code, path) => {
    const error = errorOf(() => parsePlan(document));
    expect(error).toMatchObject({ code, path });
    if (path) expect(error.message).toContain(`${path}: `);
    expect({}).not.toHaveProperty('x');
  });

  it('that is nested without end is refused', () => {
    const cycle: Record<string, unknown> = {};
    cycle.self = cycle;
    expect(errorOf(() => parsePlan(plan([], { provenance: cycle }))).code).toBe('PLAN_TOO_LARGE');
  });

  it('for another model is refused before anything else that depends on the model', () => {
    const error = errorOf(() => parsePlan(plan([group([28, 29])]), { layers: 12 }));
    expect(error).toMatchObject({ code: 'PLAN_LAYER_COUNT', path: 'layers', found: '30' });
  });

  it('over layers that cannot be grouped is refused with the reason', () => {
    const notGroupable = new Map([[6, 'its window differs']]);
    const error = errorOf(() => parsePlan(plan([group([5, 6])]), { notGroupable }));
    expect(error).toMatchObject({ code: 'PLAN_LAYER_NOT_GROUPABLE', path: 'groups[0].layers[1]' });
    expect(error.message).toContain('its window differs');
  });

  it('with a form that cannot be written is refused', () => {
    const wide = plan([{ ...group([5, 6], 'full'), form: 'wide' }]);
    expect(parsePlan(wide, { forms: ['branches', 'wide'] })).toEqual(wide);
    const error = errorOf(() => parsePlan(wide, { forms: ['branches'] }));
    expect(error).toMatchObject({ code: 'PLAN_FORM_UNSUPPORTED', path: 'groups[0].form' });
    expect(() => parsePlan(plan([group([5, 6])]), { forms: ['branches'] })).not.toThrow();
  });

  it('of any kind gives a coded error and nothing else', () => {
    const known = new Set(Object.keys(PLAN_ERROR_CODES));
    const check = (document: unknown) => {
      try {
        parsePlan(document);
      } catch (error) {
        expect(error).toBeInstanceOf(PlanError);
        expect(known).toContain((error as PlanError).code);
      }
    };
    fc.assert(fc.property(fc.anything({ withBigInt: true, withDate: true, withMap: true }), check));
    fc.assert(fc.property(fc.json(), check));
    fc.assert(
      fc.property(
        fc.record({
          version: fc.constant(1),
          layers: fc.oneof(fc.nat({ max: 9 }), fc.double()),
          groups: fc.array(
            fc.record(
              { layers: fc.array(fc.oneof(fc.nat({ max: 9 }), fc.double())), bypass: fc.anything() },
              { requiredKeys: [] },
            ),
          ),
        }),
        check,
      ),
    );
  });

  it('made of bit flips in a good one gives a coded error or a plan', () => {
    const text = JSON.stringify(
      plan([group([1, 2]), group([3, 4, 5], 'full')], { provenance: { tool: 'x' } }),
    );
    fc.assert(
      fc.property(fc.nat({ max: text.length - 1 }), fc.integer({ min: 0, max: 6 }), (at, bit) => {
        const flipped =
          text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ (1 << bit)) + text.slice(at + 1);
        try {
          validatePlan(parsePlan(flipped));
        } catch (error) {
          expect(error).toBeInstanceOf(PlanError);
        }
      }),
    );
  });
});
