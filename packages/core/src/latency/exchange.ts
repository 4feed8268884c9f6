import { UsageError } from '../errors.js';
import type { LinkProfile, MachineProfile } from './profile.js';

/**
 * An exchange between devices.
 * - `all-reduce`: every device ends with the sum of all devices' `bytes`.
 * - `all-gather`: every device ends with all devices' parts, `bytes` in all.
 * - `broadcast`: the first device's `bytes` go to all.
 * - `send`: along each pair at the same time, `bytes` from the busiest sender.
 */
export interface Exchange {
  readonly kind: 'all-reduce' | 'all-gather' | 'broadcast' | 'send';
  /** Ids, in the order of the ring; at least two. */
  readonly devices: readonly string[];
  /** Of `send`: from and to. */
  readonly pairs?: readonly (readonly [from: string, to: string])[];
  readonly bytes: number;
}

/**
 * Seconds of an exchange: base + hops × hop + volume ÷ bandwidth, over a ring of the devices. An all-reduce on n
 * devices takes 2 (n − 1) hops and moves 2 (n − 1)/n of the bytes over each link (Patarasuk and Yuan 2009); that is
 * also how NCCL predicts itself (`src/graph/tuning.cc`), whose constants fit here as `protocols`. The slowest link of
 * the ring decides, with the protocol that is fastest on it.
 *
 * @throws UsageError `PROFILE_NO_LINK`
 */
export function exchangeSeconds(exchange: Exchange, profile: MachineProfile): number {
  const n = exchange.devices.length;
  if (n < 2) return 0;
  const { hops, volume } = {
    'all-reduce': { hops: 2 * (n - 1), volume: (2 * (n - 1)) / n },
    'all-gather': { hops: n - 1, volume: (n - 1) / n },
    broadcast: { hops: n - 1, volume: 1 },
    send: { hops: 1, volume: 1 },
  }[exchange.kind];
  const times = exchangeLinks(exchange, profile).map(({ bytesPerSecond, protocols }) =>
    Math.min(
      ...protocols.map(
        ({ baseSeconds, hopSeconds, share }) =>
          baseSeconds + hops * hopSeconds + (volume * exchange.bytes) / (bytesPerSecond * share),
      ),
    ),
  );
  return Math.max(...times);
}

/** The links that an exchange uses: those of the ring, or of the pairs. */
export function exchangeLinks(exchange: Exchange, profile: MachineProfile): LinkProfile[] {
  const { devices, pairs } = exchange;
  // A ring of two is one link; a broadcast needs no way back to where it began.
  const closed = devices.length > 2 && exchange.kind !== 'broadcast';
  const ring = devices.slice(closed ? 0 : 1).map((id, i): readonly [string, string] => {
    return closed ? [id, devices[(i + 1) % devices.length]!] : [devices[i]!, id];
  });
  return (exchange.kind === 'send' && pairs !== undefined ? pairs : ring).map(([a, b]) =>
    linkBetween(profile, a, b),
  );
}

function linkBetween(profile: MachineProfile, a: string, b: string): LinkProfile {
  const named = profile.links.find(
    ({ between }) => between !== 'all' && between.includes(a) && between.includes(b),
  );
  const link = named ?? profile.links.find(({ between }) => between === 'all');
  if (link !== undefined) return link;
  throw new UsageError('PROFILE_NO_LINK', `The profile ${profile.name} has no link between ${a} and ${b}.`, {
    expected: 'a link between them, or between all',
    found: `${profile.links.length} links`,
    hint: 'add the link, or choose other devices',
  });
}
