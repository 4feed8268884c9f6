import type { MapRole } from '../linear/index.js';

/** What recovery refits unless told otherwise; `o` gained nothing on text of other kinds. */
export const DEFAULT_ROLES: readonly MapRole[] = ['qkv', 'gate-up', 'down'];
