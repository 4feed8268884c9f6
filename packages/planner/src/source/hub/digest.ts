import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';

/** A file's expected content: SHA-256 of large files, git's own blob hash (SHA-1 with a header) of small ones. */
export type Digest =
  | { readonly kind: 'sha256'; readonly hex: string }
  | { readonly kind: 'git-blob'; readonly hex: string };

/** A running hash of a file of `size` bytes. */
export function startHash(digest: Digest, size: number): Hash {
  if (digest.kind === 'sha256') return createHash('sha256');
  return createHash('sha1').update(`blob ${size}\0`);
}

/** Feeds the bytes of `file` to `hash`, without holding more than a chunk. */
export async function hashFile(hash: Hash, file: string, signal?: AbortSignal): Promise<Hash> {
  for await (const chunk of createReadStream(file, signal === undefined ? {} : { signal }))
    hash.update(chunk);
  return hash;
}
