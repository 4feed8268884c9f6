import { z } from 'zod';
import { badRequest } from '../http/error.js';
import type { ChatTool, JsonSchema } from '../model.js';
import { cap, type Limits } from './limits.js';

/** Which tools a request offers, and what the model is to do with them. */
export interface Tooling {
  readonly tools: readonly ChatTool[];
  /** `auto`: as the model likes. `required`: it must call one of `callable`. `none`: it must not. */
  readonly choice: 'auto' | 'none' | 'required';
  /** The tools that a required call may be of. */
  readonly callable: readonly ChatTool[];
}

export const functionName = z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, 'letters, digits, _ and -, at most 64');
export const jsonObject = z.record(z.string(), z.unknown());

/** A function's members, which lie at different depths in the chat's and the responses' interface. */
export const functionSchema = z.object({
  name: functionName,
  description: z.string().nullish(),
  parameters: jsonObject.nullish(),
  strict: z.boolean().nullish(),
});

export type GivenFunction = z.infer<typeof functionSchema>;
export type GivenChoice = 'auto' | 'none' | 'required' | { readonly name: string };

export function tooling(
  functions: readonly GivenFunction[],
  choice: GivenChoice | undefined,
  limits: Limits,
): Tooling {
  cap(functions.length, limits.tools, 'tools', 'tools');
  const tools = functions.map(toolOf);
  const names = new Set(functions.map(({ name }) => name));
  if (names.size !== tools.length) throw badRequest('Two tools have the same name.', 'tools');
  checkSize(JSON.stringify(tools).length, limits, 'tools');
  for (const tool of tools) checkDepth(tool.function.parameters ?? {}, limits, 'tools');
  if (choice === undefined || choice === 'auto') return { tools, choice: 'auto', callable: tools };
  if (choice === 'none') return { tools, choice, callable: [] };
  if (tools.length === 0) throw badRequest('tool_choice wants a tool, and there is none.', 'tool_choice');
  if (choice === 'required') return { tools, choice, callable: tools };
  const callable = tools.filter(({ function: { name } }) => name === choice.name);
  if (callable.length === 0) throw badRequest('tool_choice names no tool of the request.', 'tool_choice');
  return { tools, choice: 'required', callable };
}

function toolOf({ name, description, parameters }: GivenFunction): ChatTool {
  return {
    type: 'function',
    function: {
      name,
      ...(description == null ? {} : { description }),
      ...(parameters == null ? {} : { parameters }),
    },
  };
}

/** @throws ApiError 400 for a schema that is larger or deeper than the server takes */
export function limitSchema(schema: JsonSchema, limits: Limits, param: string): void {
  checkSize(JSON.stringify(schema).length, limits, param);
  checkDepth(schema, limits, param);
}

function checkSize(length: number, { schemaLength }: Limits, param: string): void {
  cap(length, schemaLength, param, 'characters of JSON Schema');
}

function checkDepth(schema: unknown, { schemaDepth }: Limits, param: string): void {
  const depthOf = (value: unknown): number =>
    typeof value !== 'object' || value === null ? 0 : 1 + Math.max(0, ...Object.values(value).map(depthOf));
  cap(depthOf(schema), schemaDepth, param, 'levels of JSON Schema');
}

/** JSON that is the call of one of the tools. */
export function callSchema(tools: readonly ChatTool[], argumentsKey: string): JsonSchema {
  const one = ({ function: { name, parameters } }: ChatTool): JsonSchema => ({
    type: 'object',
    properties: { name: { const: name }, [argumentsKey]: parameters ?? { type: 'object' } },
    required: ['name', argumentsKey],
    additionalProperties: false,
  });
  const [first] = tools;
  return tools.length === 1 && first !== undefined ? one(first) : { anyOf: tools.map(one) };
}
