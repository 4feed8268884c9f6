import type { OrtLibrary } from './library.js';

/** Names as C strings. */
export interface NameList {
  readonly text: Uint8Array;
  /** `const char*[]` into `text`. */
  readonly pointers: BigUint64Array;
}

export function nameList(library: OrtLibrary, names: readonly string[]): NameList {
  const encoded = names.map((name) => Buffer.from(`${name}\0`));
  const text = new Uint8Array(
    Math.max(
      8,
      encoded.reduce((sum, { length }) => sum + length, 0),
    ),
  );
  const pointers = new BigUint64Array(Math.max(1, names.length));
  // Past 64 bytes an array's memory lies outside the JavaScript heap and does not move; asking for `buffer` moves a
  // smaller one's there.
  void text.buffer;
  const base = library.ffi.address(text);
  let at = 0;
  encoded.forEach((bytes, i) => {
    text.set(bytes, at);
    pointers[i] = base + BigInt(at);
    at += bytes.length;
  });
  return { text, pointers };
}
