export { shapeOfModel } from './model-shape.js';
