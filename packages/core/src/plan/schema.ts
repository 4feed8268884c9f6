import { z } from 'zod';

/** More layers than any model has; bounds the work a hostile document can ask for. */
export const MAX_LAYERS = 65_536;

const layerId = z
  .int()
  .min(0)
  .max(MAX_LAYERS - 1)
  .meta({ description: 'Number of a layer, counted from 0.' });

export const bypassSchema = z.union([z.int().min(0), z.literal('full')]).meta({
  description:
    "Bypass distance D: a layer's FFN reads, besides its own layer's attention output, those of up to D layers " +
    'before it in the group; "full": those of all layers of the group. Without meaning on parallel blocks.',
});

export const formSchema = z.enum(['branches', 'wide', 'packed']).meta({
  description: 'How the group is written into a graph; "branches" when absent.',
});

const groupSchema = z
  .strictObject({
    layers: z
      .array(layerId)
      .min(2)
      .max(MAX_LAYERS)
      .meta({ description: 'At least two neighbouring layers, ascending; all read the input of the first.' }),
    bypass: bypassSchema,
    form: formSchema.exactOptional(),
  })
  .meta({ description: 'Layers that run at the same time.' });

const provenanceSchema = z
  .looseObject({
    tool: z.string().exactOptional(),
    created: z.string().exactOptional(),
    model: z.string().exactOptional(),
    modelHash: z.string().exactOptional(),
    method: z.string().exactOptional(),
  })
  .meta({ description: 'Where the plan came from. Any further fields; none changes what the plan means.' });

/** The Plan document, version 1, as far as one field at a time can tell; `parsePlan` checks the rest. */
export const planSchema = z
  .strictObject({
    $schema: z.string().exactOptional().meta({ description: 'For editors; not kept.' }),
    version: z.literal(1).meta({ description: 'Version of this format.' }),
    layers: z.int().min(1).max(MAX_LAYERS).meta({ description: 'Number of decoder layers of the model.' }),
    groups: z
      .array(groupSchema)
      .max(MAX_LAYERS)
      .meta({ description: 'Groups without overlap; layers in none run one after the other.' }),
    provenance: provenanceSchema.exactOptional(),
  })
  .meta({
    title: 'CQIL plan',
    description:
      'Which neighbouring layers of a decoder language model run at the same time (arXiv 2404.06709).',
  });

/** The published JSON Schema (draft 2020-12), as in `plan.schema.json`. */
export function planJsonSchema(): Record<string, unknown> {
  return z.toJSONSchema(planSchema, { target: 'draft-2020-12', io: 'input' });
}
