/** An element or text of a page, as {@link parseMarkup} read it. */
export interface Element {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: (Element | string)[];
}

const VOID = new Set(['meta', 'br', 'hr', 'img', 'input', 'link']);
/** Elements whose content is not markup. */
const RAW = new Set(['script', 'style']);
const NAME = '[A-Za-z][A-Za-z0-9-]*';
const TAG = new RegExp(`<(/?)(${NAME})((?:\\s+${NAME}(?:="[^"<]*")?)*)\\s*(/?)>`, 'y');

/**
 * Reads HTML more strictly than a browser does: every element is closed in order, attributes are in double quotes and
 * stand once, nothing but known entities follows an ampersand, and `<` and `>` never stand alone.
 *
 * @throws Error with the place where that is not so
 */
export function parseMarkup(page: string): Element {
  const root: Element = { name: '#root', attributes: new Map(), children: [] };
  const open: Element[] = [root];
  let at = page.startsWith('<!doctype html>') ? '<!doctype html>'.length : 0;
  const fail = (what: string): never => {
    throw new Error(`${what} at ${at}: ${JSON.stringify(page.slice(at, at + 60))}`);
  };
  while (at < page.length) {
    const next = page.indexOf('<', at);
    const text = page.slice(at, next < 0 ? undefined : next);
    if (text.includes('>')) fail('a > that is not escaped');
    if (text !== '') open.at(-1)!.children.push(decode(text, fail));
    if (next < 0) break;
    at = next;
    TAG.lastIndex = at;
    const tag = TAG.exec(page) ?? fail('no tag');
    const [whole, closing, name, rest, selfClosing] = tag as unknown as [
      string,
      string,
      string,
      string,
      string,
    ];
    at += whole.length;
    if (closing !== '') {
      const last = open.pop();
      if (last?.name !== name) fail(`</${name}> closes <${last?.name}>`);
      continue;
    }
    const element: Element = { name, attributes: attributesOf(rest, fail), children: [] };
    open.at(-1)!.children.push(element);
    if (RAW.has(name)) {
      const end = page.indexOf(`</${name}>`, at);
      if (end < 0) fail(`<${name}> is not closed`);
      element.children.push(page.slice(at, end));
      at = end + name.length + 3;
    } else if (selfClosing === '' && !VOID.has(name)) open.push(element);
  }
  if (open.length !== 1) fail(`<${open.at(-1)!.name}> is not closed`);
  return root;
}

function attributesOf(text: string, fail: (what: string) => never): Map<string, string> {
  const attributes = new Map<string, string>();
  for (const [, name, value] of text.matchAll(new RegExp(`(${NAME})(?:="([^"]*)")?`, 'g'))) {
    if (attributes.has(name!)) fail(`attribute ${name} twice`);
    attributes.set(name!, decode(value ?? '', fail));
  }
  return attributes;
}

function decode(text: string, fail: (what: string) => never): string {
  return text.replace(/&(amp;|lt;|gt;|quot;|#39;)?/g, (_, entity: string | undefined) => {
    if (entity === undefined) fail('an & that is not escaped');
    return { 'amp;': '&', 'lt;': '<', 'gt;': '>', 'quot;': '"', '#39;': "'" }[entity!]!;
  });
}

/** All elements below this one, in the order of the page. */
export function descendants(element: Element): Element[] {
  return element.children.flatMap((child) =>
    typeof child === 'string' ? [] : [child, ...descendants(child)],
  );
}

/** All text below this one, without scripts and styles. */
export function textOf(element: Element): string {
  if (RAW.has(element.name)) return '';
  return element.children.map((child) => (typeof child === 'string' ? child : textOf(child))).join('');
}
