export { openVariant, withVariant } from './open.js';
