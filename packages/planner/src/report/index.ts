export { CARD_MARK, type ModelCardOptions, renderModelCard } from './card.js';
export { checkReport, formatReport, readReport } from './document.js';
export { renderReportPage } from './page.js';
export { CARD_FILE, REPORT_FILE, REPORT_PAGE_FILE, type WrittenReport, writeReport } from './write.js';
