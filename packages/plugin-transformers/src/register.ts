/**
 * `import '@cqil/plugin-transformers/register'` is all that a program needs to run its models on this package's runtime.
 */
import { registerBackend } from './backend/register.js';

registerBackend();
