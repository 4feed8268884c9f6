import { create } from '@bufbuild/protobuf';
import { OperatorSetIdProtoSchema } from '../../onnx/gen/onnx_pb.js';
import type { Model } from '../../onnx/index.js';

/** Lets a model use ONNX Runtime's own operators. */
export function needContribOperators(model: Model): void {
  if (model.opsets.has('com.microsoft')) return;
  model.rest.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: 'com.microsoft', version: 1n }));
}
