import type { Session } from '../types.js';
import type { NativeSession } from './native-session.js';

/**
 * A session whose runs can be prepared and whose tensors stay where they are: a native one, or several that act as one.
 */
export type BindableSession = Pick<NativeSession, keyof NativeSession>;

export function isBindable(session: Session): session is BindableSession {
  return session.binding === 'native' && 'runBound' in session;
}
