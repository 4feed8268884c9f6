import { sequentialSteps } from '@cqil/core';
import type { OptimizeReport } from '../../optimize/document.js';
import { stack, stackText } from '../charts/stack.js';
import { html } from '../html.js';
import { figure, type Section } from './section.js';

/** The chosen plan over the layers. */
export function planSection(report: OptimizeReport): Section {
  const { plan } = report;
  return {
    id: 'plan',
    title: `The plan: ${plan.layers} layers in ${sequentialSteps(plan)} steps`,
    body: html`<p>${stackText(plan)}</p>${figure(
      stack(plan),
      html`Read left to right, line by line: a column is a step, and layers above each other run at the same time on the same input. In a layer the wide box with its number is the attention, the narrow one the FFN. A dashed line is a bypass: the FFN at its end also reads the attention at its start. d is the bypass distance, in layers.`,
    )}`,
  };
}
