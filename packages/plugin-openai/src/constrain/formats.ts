const DATE =
  '([0-9]{4} "-" (("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])))';
const TIME = '(([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? "Z")';
const BYTE = '("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9] [0-9] | [1-9] [0-9] | [0-9])';
const LABEL = '([a-z] ([a-z0-9]{0,30} [a-z0-9])?)';
const HEX = '[0-9a-f]';

/** Texts of JSON Schema's formats; narrower than the formats are, where that is simpler: days that every year has. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: DATE,
  time: TIME,
  'date-time': `(${DATE} "T" ${TIME})`,
  uuid: `(${HEX}{8} "-" ${HEX}{4} "-" [1-8] ${HEX}{3} "-" [89ab] ${HEX}{3} "-" ${HEX}{12})`,
  ipv4: `(${BYTE} "." ${BYTE} "." ${BYTE} "." ${BYTE})`,
  hostname: `(${LABEL} ("." ${LABEL}){0,3})`,
  email: `(${LABEL} ("." ${LABEL}){0,2} "@" ${LABEL} ("." ${LABEL}){0,2} "." [a-z]{2,6})`,
};
