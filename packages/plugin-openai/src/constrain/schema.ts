import type { JsonSchema } from '../model.js';
import { anyOf, characterClass, literal, repeat, sequence } from './ebnf.js';
import { FORMATS } from './formats.js';
import { type Bound, integerRange, numberRange } from './numbers.js';
import { patternGrammar } from './pattern.js';

/** A JSON Schema that asks for something that no grammar here can hold a model to. */
export class SchemaError extends Error {
  override readonly name = 'SchemaError';
}

/** Says nothing about which values are right. */
const ANNOTATIONS = new Set([
  '$anchor',
  '$comment',
  '$defs',
  '$id',
  '$schema',
  'contentEncoding',
  'contentMediaType',
  'default',
  'definitions',
  'deprecated',
  'description',
  'example',
  'examples',
  'id',
  'readOnly',
  'strict',
  'title',
  'writeOnly',
]);

/** By type, what may be said about its values. */
const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  object: ['additionalProperties', 'properties', 'required'],
  array: ['items', 'maxItems', 'minItems', 'prefixItems'],
  string: ['format', 'maxLength', 'minLength', 'pattern'],
  number: ['exclusiveMaximum', 'exclusiveMinimum', 'maximum', 'minimum'],
  integer: ['exclusiveMaximum', 'exclusiveMinimum', 'maximum', 'minimum'],
  boolean: [],
  null: [],
};

/** What a schema comes to when its references are followed. */
const MOST_NODES = 4000;
const DEEPEST = 32;
/** Counted repetition costs tens of milliseconds a token, and with larger numbers seconds to compile. */
const LONGEST = 128;

/** White space that a model may write between two signs: enough to be legible, too little to go on for ever. */
const SPACE = 'ws ::= " "? | "\\u000a" [ \\u0009]{0,40}';
/** What a string may hold; escapes only where they are needed. */
const CHARACTER = `char ::= ${characterClass([
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0x7e],
  [0x80, 0x10ffff],
])} | "\\u005c" ([\\u0022\\u005c\\u002fbfnrt] | "u00" [01] [0-9a-fA-F])`;
/** Repetition is written as recursion at the end: xgrammar is a hundred times faster at that than at `*`. */
const ANY = [
  'value ::= object | array | string | number | "true" | "false" | "null"',
  'object ::= "{" ws (pair pairs)? ws "}"',
  'pair ::= string colon value',
  'pairs ::= "" | comma pair pairs',
  'array ::= "[" ws (value values)? ws "]"',
  'values ::= "" | comma value values',
  'string ::= "\\u0022" chars',
  'chars ::= "\\u0022" | char chars',
  'number ::= integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
  'integer ::= "-"? ("0" | [1-9] [0-9]{0,14})',
  'comma ::= ws "," ws',
  'colon ::= ws ":" ws',
];

/**
 * A grammar, in xgrammar's notation, whose every text is JSON that the schema takes.
 *
 * The grammar may be narrower than the schema: an object with `properties` has no others, in the order of the schema,
 * and text is not escaped where it need not be. It is never wider: keywords that it cannot hold to are refused.
 *
 * @throws SchemaError that names the place and the keyword
 */
export function schemaGrammar(schema: JsonSchema): string {
  const builder = new Builder(schema);
  const root = builder.grammar(schema, '#', []);
  return [`root ::= ${root}`, ...builder.rules, SPACE, CHARACTER, ...ANY].join('\n');
}

class Builder {
  readonly rules: string[] = [];
  readonly #root: JsonSchema;
  #nodes = 0;

  constructor(root: JsonSchema) {
    this.#root = root;
  }

  /**
   * @param at where the schema stands, for errors
   * @param following the references that led here
   */
  grammar(schema: unknown, at: string, following: readonly string[], depth = 0): string {
    if (++this.#nodes > MOST_NODES) throw new SchemaError('it is too large once its references are followed');
    if (depth > DEEPEST) throw new SchemaError('it is nested too deep once its references are followed');
    if (schema === true) return 'value';
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) {
      throw new SchemaError(`${at} is no schema that any value could meet`);
    }
    const said = Object.fromEntries(
      Object.entries(schema).filter(([key, value]) => !ANNOTATIONS.has(key) && value !== undefined),
    );
    const under = (inner: unknown, key: string) => this.grammar(inner, `${at}/${key}`, following, depth + 1);
    const keys = Object.keys(said);
    if (keys.length === 0) return 'value';
    if ('$ref' in said) {
      only(said, ['$ref'], at);
      return this.#reference(said.$ref, at, following, depth);
    }
    if ('const' in said || 'enum' in said) return this.#constants(said, at);
    for (const key of ['anyOf', 'oneOf', 'allOf'] as const) {
      if (!(key in said)) continue;
      // A type beside its alternatives says nothing new where each of them has one.
      only(said, [key, 'type'], at);
      const schemas = list(said[key], `${at}/${key}`);
      if (key === 'allOf' && schemas.length > 1)
        throw new SchemaError(`${at}: allOf of several is not supported`);
      if (key === 'oneOf') this.#requireDifferent(schemas, at);
      if ('type' in said && schemas.some((one) => typeOf(one) !== said.type)) {
        throw new SchemaError(`${at}: type beside ${key} is not supported`);
      }
      return this.#rule(anyOf(schemas.map((one, i) => under(one, `${key}/${i}`))));
    }
    return anyOf(typesOf(said, at).map((type) => this.#typed(type, said, at, under)));
  }

  #typed(
    type: string,
    said: Readonly<Record<string, unknown>>,
    at: string,
    under: (schema: unknown, key: string) => string,
  ): string {
    switch (type) {
      case 'object':
        return this.#object(said, at, under);
      case 'array':
        return this.#array(said, at, under);
      case 'string':
        return this.#string(said, at);
      case 'integer':
      case 'number':
        return numeric(type, said, at);
      case 'boolean':
        return '("true" | "false")';
      default:
        return '"null"';
    }
  }

  #object(
    said: Readonly<Record<string, unknown>>,
    at: string,
    under: (schema: unknown, key: string) => string,
  ): string {
    const properties = record(said.properties ?? {}, `${at}/properties`);
    const required = new Set(list(said.required ?? [], `${at}/required`));
    const { additionalProperties: more = true } = said;
    const all = new Map(
      Object.entries(properties).map(([name, schema]) => [name, { schema, key: `properties/${name}` }]),
    );
    for (const name of required) {
      if (typeof name !== 'string') throw new SchemaError(`${at}/required is not a list of names`);
      if (all.has(name)) continue;
      if (more === false)
        throw new SchemaError(`${at} requires ${JSON.stringify(name)}, which it does not allow`);
      all.set(name, { schema: more, key: 'additionalProperties' });
    }
    if (all.size === 0) {
      if (more === false) return '("{" ws "}")';
      const pair = this.#rule(`string colon ${under(more, 'additionalProperties')}`);
      return this.#rule(`"{" ws (${pair} ${this.#many(`comma ${pair}`)})? ws "}"`);
    }
    // Backwards: what may follow a property is known before the property is written.
    let first = '""';
    let later = '""';
    for (const [name, { schema, key }] of [...all].reverse()) {
      const pair = this.#rule(`${literal(JSON.stringify(name))} colon ${under(schema, key)}`);
      const begun = sequence(pair, later);
      const added = sequence('comma', pair, later);
      first = this.#rule(required.has(name) ? begun : anyOf([begun, first]));
      later = this.#rule(required.has(name) ? added : anyOf([added, later]));
    }
    return this.#rule(`"{" ws ${first} ws "}"`);
  }

  #array(
    said: Readonly<Record<string, unknown>>,
    at: string,
    under: (schema: unknown, key: string) => string,
  ): string {
    const heads = list(said.prefixItems ?? [], `${at}/prefixItems`);
    const least = amount(said.minItems ?? 0, `${at}/minItems`);
    const most = said.maxItems === undefined ? undefined : amount(said.maxItems, `${at}/maxItems`);
    const { items = true } = said;
    if (most !== undefined && most < least) throw new SchemaError(`${at}: maxItems is less than minItems`);
    if (heads.length > 0) {
      // Tuples: all heads, and nothing behind them.
      if (items !== false && most !== heads.length && items !== true) {
        throw new SchemaError(`${at}: items behind prefixItems are not supported`);
      }
      if (least > heads.length || (most ?? heads.length) < heads.length) {
        throw new SchemaError(`${at}: prefixItems of another number than the items are not supported`);
      }
      const parts = heads.map((schema, i) => under(schema, `prefixItems/${i}`));
      return this.#rule(`"[" ws ${parts.join(' comma ')} ws "]"`);
    }
    if (items === false || most === 0) {
      if (least > 0) throw new SchemaError(`${at} wants items, and allows none`);
      return '("[" ws "]")';
    }
    const item = this.#rule(under(items, 'items'));
    const next = `comma ${item}`;
    const must = Math.max(least - 1, 0);
    const rest =
      most === undefined
        ? sequence(repeat(next, must, must), this.#many(next))
        : repeat(next, must, most - 1);
    const filled = sequence(item, rest);
    return this.#rule(`"[" ws ${least === 0 ? `(${filled})?` : filled} ws "]"`);
  }

  #string(said: Readonly<Record<string, unknown>>, at: string): string {
    const { format, pattern } = said;
    const sized = 'minLength' in said || 'maxLength' in said;
    if ((format !== undefined || pattern !== undefined) && sized) {
      throw new SchemaError(`${at}: a length beside format or pattern is not supported`);
    }
    if (format !== undefined) {
      // A pattern beside a format is the format's own, as schema libraries write it.
      const grammar = FORMATS[String(format)];
      if (grammar === undefined)
        throw new SchemaError(`${at}: the format ${JSON.stringify(format)} is not supported`);
      return this.#rule(`"\\u0022" ${grammar} "\\u0022"`);
    }
    if (pattern !== undefined) {
      if (typeof pattern !== 'string') throw new SchemaError(`${at}/pattern is not a text`);
      try {
        return this.#rule(`"\\u0022" ${patternGrammar(pattern)} "\\u0022"`);
      } catch (cause) {
        throw new SchemaError(`${at}/pattern: ${cause instanceof Error ? cause.message : cause}`);
      }
    }
    if (!sized) return 'string';
    const least = amount(said.minLength ?? 0, `${at}/minLength`);
    const most = said.maxLength === undefined ? undefined : amount(said.maxLength, `${at}/maxLength`);
    if (most !== undefined && most < least) throw new SchemaError(`${at}: maxLength is less than minLength`);
    // Closed by `chars` where there is no upper bound.
    if (most === undefined) return this.#rule(`"\\u0022" ${repeat('char', least, least)} chars`);
    return this.#rule(`"\\u0022" ${repeat('char', least, most)} "\\u0022"`);
  }

  #constants(said: Readonly<Record<string, unknown>>, at: string): string {
    only(said, ['const', 'enum', 'type'], at);
    const given = 'const' in said ? [said.const] : list(said.enum, `${at}/enum`);
    const types = 'type' in said ? typesOf({ type: said.type }, at) : undefined;
    const values =
      types === undefined ? given : given.filter((value) => types.some((type) => isOf(type, value)));
    if (values.length === 0) throw new SchemaError(`${at} allows no value`);
    return this.#rule(anyOf(values.map((value) => literal(JSON.stringify(value)))));
  }

  #reference(ref: unknown, at: string, following: readonly string[], depth: number): string {
    if (typeof ref !== 'string' || !ref.startsWith('#')) {
      throw new SchemaError(`${at}: only references within the schema (#/…) are supported`);
    }
    if (ref === '#' || following.includes(ref)) {
      throw new SchemaError(`${at}: a schema that refers to itself is not supported`);
    }
    let found: unknown = this.#root;
    for (const part of ref.slice(2).split('/')) {
      const key = decode(part);
      found =
        typeof found === 'object' && found !== null && Object.hasOwn(found, key)
          ? (found as Record<string, unknown>)[key]
          : undefined;
    }
    if (found === undefined) throw new SchemaError(`${at} refers to ${ref}, which is not there`);
    return this.grammar(found, ref, [...following, ref], depth + 1);
  }

  /** `oneOf` wants exactly one: where two could both hold, a grammar of alternatives would be too wide. */
  #requireDifferent(schemas: readonly unknown[], at: string): void {
    const looked = schemas.map((schema) => this.#look(schema));
    for (const [i, one] of looked.entries()) {
      for (const other of looked.slice(i + 1)) {
        if (!areDifferent(one, other)) {
          throw new SchemaError(
            `${at}: oneOf is supported where types or a constant property tell them apart`,
          );
        }
      }
    }
  }

  /** The schema that a reference names. */
  #look(schema: unknown): Readonly<Record<string, unknown>> {
    const given = (typeof schema === 'object' && schema !== null ? schema : {}) as Record<string, unknown>;
    const name = /^#\/(\$defs|definitions)\/([^/]+)$/.exec(String(given.$ref ?? ''));
    const group = name?.[1] === undefined ? undefined : this.#root[name[1]];
    if (typeof group !== 'object' || group === null) return given;
    return ((group as Record<string, unknown>)[decode(name?.[2] ?? '')] ?? {}) as Record<string, unknown>;
  }

  /** As many as there may be, none included. */
  #many(expression: string): string {
    const name = `r${this.rules.length}`;
    this.rules.push(`${name} ::= "" | ${expression} ${name}`);
    return name;
  }

  /** Gives an expression a name, so that it can stand in several places. */
  #rule(expression: string): string {
    const name = `r${this.rules.length}`;
    this.rules.push(`${name} ::= ${expression}`);
    return name;
  }
}

function numeric(type: 'integer' | 'number', said: Readonly<Record<string, unknown>>, at: string): string {
  const low = bound(said, 'minimum', 'exclusiveMinimum', at, Math.max);
  const high = bound(said, 'maximum', 'exclusiveMaximum', at, Math.min);
  if (low === undefined && high === undefined) return type;
  let grammar: string | undefined;
  try {
    grammar = type === 'integer' ? integerRange(low, high) : numberRange(low, high);
  } catch (cause) {
    throw new SchemaError(`${at}: ${cause instanceof Error ? cause.message : cause}`);
  }
  if (grammar === undefined) throw new SchemaError(`${at}: there is no such number`);
  return grammar;
}

/** The stronger of the two ways to say a bound. */
function bound(
  said: Readonly<Record<string, unknown>>,
  inclusive: string,
  exclusive: string,
  at: string,
  stronger: (a: number, b: number) => number,
): Bound | undefined {
  const read = (key: string): number | undefined => {
    const value = said[key];
    if (value === undefined || (typeof value === 'number' && Number.isFinite(value))) return value as number;
    throw new SchemaError(`${at}/${key} is not a number`);
  };
  const [a, b] = [read(inclusive), read(exclusive)];
  if (b !== undefined && (a === undefined || stronger(a, b) === b)) return { value: b, exclusive: true };
  return a === undefined ? undefined : { value: a, exclusive: false };
}

/** The types a schema allows; where it does not say, those that its keywords are about. */
function typesOf(said: Readonly<Record<string, unknown>>, at: string): string[] {
  const { type, ...rest } = said;
  const keys = Object.keys(rest);
  const given =
    type === undefined
      ? Object.keys(KEYWORDS).filter((one) => KEYWORDS[one]?.includes(keys[0] ?? ''))
      : [type].flat();
  // A whole number is a number.
  const types = type === undefined ? given.filter((one) => one !== 'integer') : given;
  if (type !== undefined && types.length === 0) throw new SchemaError(`${at}/type is empty`);
  for (const one of types) {
    if (typeof one !== 'string' || !Object.hasOwn(KEYWORDS, one)) {
      throw new SchemaError(`${at}: there is no type ${JSON.stringify(one)}`);
    }
  }
  const known = new Set(types.flatMap((one) => KEYWORDS[one as string] ?? []));
  for (const key of keys) {
    if (!known.has(key)) throw new SchemaError(`${at}: ${key} is not supported`);
  }
  return types as string[];
}

function isOf(type: string, value: unknown): boolean {
  switch (type) {
    case 'array':
      return Array.isArray(value);
    case 'integer':
      return Number.isInteger(value);
    case 'null':
      return value === null;
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value);
    default:
      return typeof value === type;
  }
}

function areDifferent(
  one: Readonly<Record<string, unknown>>,
  other: Readonly<Record<string, unknown>>,
): boolean {
  const [a, b] = [typeOf(one), typeOf(other)];
  if (a === undefined || b === undefined) return false;
  const numeric = (type: string) => type === 'number' || type === 'integer';
  if (a !== b) return !(numeric(a) && numeric(b));
  if (a !== 'object') {
    const [mine, theirs] = [constantsOf(one), constantsOf(other)];
    return mine !== undefined && theirs !== undefined && !mine.some((value) => theirs.includes(value));
  }
  const propertiesOf = (schema: Readonly<Record<string, unknown>>) =>
    (schema.properties ?? {}) as Record<string, Readonly<Record<string, unknown>>>;
  const needs = (schema: Readonly<Record<string, unknown>>, name: string) =>
    Array.isArray(schema.required) && schema.required.includes(name);
  return Object.keys(propertiesOf(one)).some((name) => {
    const mine = constantsOf(propertiesOf(one)[name] ?? {});
    const theirs = constantsOf(propertiesOf(other)[name] ?? {});
    if (mine === undefined || theirs === undefined) return false;
    return needs(one, name) && needs(other, name) && !mine.some((value) => theirs.includes(value));
  });
}

/** The values that a schema names, as JSON. */
function constantsOf(schema: Readonly<Record<string, unknown>>): string[] | undefined {
  if ('const' in schema) return [JSON.stringify(schema.const)];
  return Array.isArray(schema.enum) ? schema.enum.map((value) => JSON.stringify(value)) : undefined;
}

function typeOf(schema: unknown): string | undefined {
  const given = (typeof schema === 'object' && schema !== null ? schema : {}) as Record<string, unknown>;
  if (typeof given.type === 'string') return given.type;
  if ('const' in given)
    return given.const === null ? 'null' : Array.isArray(given.const) ? 'array' : typeof given.const;
  return undefined;
}

function only(said: Readonly<Record<string, unknown>>, known: readonly string[], at: string): void {
  const other = Object.keys(said).find((key) => !known.includes(key));
  if (other !== undefined) throw new SchemaError(`${at}: ${other} beside ${known[0]} is not supported`);
}

function list(value: unknown, at: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw new SchemaError(`${at} is not a list`);
}

function record(value: unknown, at: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new SchemaError(`${at} is not an object`);
}

function amount(value: unknown, at: string): number {
  if (!Number.isInteger(value) || (value as number) < 0) throw new SchemaError(`${at} is not a whole number`);
  if ((value as number) > LONGEST) throw new SchemaError(`${at} is more than ${LONGEST}`);
  return value as number;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
  } catch {
    return part;
  }
}
