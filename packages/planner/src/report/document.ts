import { readFile } from 'node:fs/promises';
import { PlanError, parsePlan, UsageError } from '@cqil/core';
import { z } from 'zod';
import { type OptimizeReport, optimizeReportSchema } from '../optimize/document.js';

/**
 * Checks what the schema's single fields cannot tell: plans are plans for this model, the similarity is square.
 * Fields that this version does not know are left out.
 *
 * @throws UsageError `REPORT_INVALID` naming the field
 */
export function checkReport(value: unknown, name = 'This document'): OptimizeReport {
  const parsed = optimizeReportSchema.safeParse(value);
  if (!parsed.success) throw invalid(name, z.prettifyError(parsed.error), parsed.error);
  const report = parsed.data;
  const { layers } = report.model;
  const size = layers + 1;
  const { similarity } = report;
  if (
    similarity !== undefined &&
    !(similarity.length === size && similarity.every((row) => row.length === size))
  ) {
    throw invalid(name, `similarity: is not ${size} × ${size}`, undefined);
  }
  for (const [i, { layers: group }] of report.candidates.entries()) {
    if (group.some((layer) => layer >= layers)) {
      throw invalid(name, `candidates[${i}].layers: the model has ${layers} layers, from 0`, undefined);
    }
  }
  return {
    ...report,
    plan: planOf(report.plan, 'plan', layers, name),
    front: report.front.map((point, i) => ({
      ...point,
      plan: planOf(point.plan, `front[${i}].plan`, layers, name),
    })),
  };
}

/**
 * The document as text: keys in the order of the schema, a list of numbers a line. Equal reports give equal bytes.
 *
 * @throws UsageError `REPORT_INVALID`
 */
export function formatReport(report: OptimizeReport): string {
  return `${print(checkReport(report), '')}\n`;
}

/** @throws UsageError `REPORT_NOT_FOUND`, `REPORT_INVALID` naming the field */
export async function readReport(file: string): Promise<OptimizeReport> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new UsageError('REPORT_NOT_FOUND', `Could not read ${file}.`, {
      expected: 'a cqil.report.json',
      found: (cause as Error).message,
      cause,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(file, (cause as Error).message, cause);
  }
  return checkReport(value, file);
}

function planOf(value: unknown, path: string, layers: number, name: string) {
  try {
    return parsePlan(value, { layers });
  } catch (cause) {
    if (!(cause instanceof PlanError)) throw cause;
    throw invalid(name, `${path}: ${cause.message}`, cause);
  }
}

function invalid(name: string, found: string, cause: unknown): UsageError {
  return new UsageError('REPORT_INVALID', `${name} is no report of an optimised model.`, {
    expected: 'the JSON document that comes with a model as cqil.report.json, version 1',
    found,
    hint: 'Make the model again; its command is in its README.md.',
    ...(cause === undefined ? {} : { cause }),
  });
}

/** JSON indented by two, but lists of plain values on one line: a row of a matrix, the layers of a group. */
function print(value: unknown, indent: string): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    if (value.every((item) => typeof item !== 'object' || item === null)) {
      return `[${value.map((item) => JSON.stringify(item)).join(', ')}]`;
    }
    return `[\n${value.map((item) => inner + print(item, inner)).join(',\n')}\n${indent}]`;
  }
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  if (fields.length === 0) return '{}';
  return `{\n${fields.map(([key, field]) => `${inner}${JSON.stringify(key)}: ${print(field, inner)}`).join(',\n')}\n${indent}}`;
}
