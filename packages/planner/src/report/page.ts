import { createHash } from 'node:crypto';
import { sequentialSteps } from '@cqil/core';
import type { OptimizeReport } from '../optimize/document.js';
import { html, trusted } from './html.js';
import { SCRIPT } from './script.js';
import { evaluationSection } from './sections/evaluation.js';
import { headline } from './sections/headline.js';
import { notesSection } from './sections/notes.js';
import { originSection } from './sections/origin.js';
import { planSection } from './sections/plan.js';
import { recoverySection } from './sections/recovery.js';
import { samplesSection } from './sections/samples.js';
import { costsSection, frontSection } from './sections/search.js';
import { section } from './sections/section.js';
import { similaritySection } from './sections/similarity.js';
import { STYLE } from './style.js';

/** The page may load nothing at all, and run no script but its own: what a document slips in stays text. */
const POLICY = [
  "default-src 'none'",
  "style-src 'unsafe-inline'",
  `script-src 'sha256-${createHash('sha256').update(SCRIPT).digest('base64')}'`,
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

/**
 * A report as one HTML page that opens from disk: style, script and charts are in it, and it loads nothing. The same
 * document gives the same bytes. Sections without data are left out.
 */
export function renderReportPage(report: OptimizeReport): string {
  const parts = [
    evaluationSection(report),
    planSection(report),
    recoverySection(report),
    frontSection(report),
    costsSection(report),
    similaritySection(report),
    samplesSection(report),
    originSection(report),
    notesSection(report),
  ].filter((part) => part !== undefined);
  const title = `${report.model.name} in ${sequentialSteps(report.plan)} steps: CQIL report`;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${trusted(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="${report.tool.name} ${report.tool.version}">
<title>${title}</title>
<style>${trusted(STYLE)}</style>
</head>
<body>
<main>
${headline(report)}
<nav aria-label="Contents"><ul>${parts.map(({ id, title: name }) => html`<li><a href="#${id}">${name}</a></li>`)}</ul></nav>
${parts.map((part) => html`${section(part)}\n`)}
</main>
<script>${trusted(SCRIPT)}</script>
</body>
</html>
`;
  return page.text;
}
