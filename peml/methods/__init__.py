"""Ways to fine-tune a model, one a file, found by name.

Others take `METHODS`, `Method`, `Attached`, `Setting`, and `attach_method`. It imports `model`,
`tasks` and `prefix`; a method's file imports a mechanism of this room, never another method. The
mechanisms, by what they put into a model:

- terms on linear layers: `linear`, `term`, `targets`, `lowrank`; LoRAs in a sum: `summed`; which
  positions are real tokens: `masks`
- PEFT's own kinds of LoRA: `peft_lora`, `lora_kinds`, `lora_handle`, `adalora_handle`
- something more that attention reads: `attention`, `projections`; of a prompt: `prompt_keys`
- rows in front of the text: `rows`; held to those of single tasks: `distilled`
- adapters where branches end: `ends`; made by a network: `generated_adapters`; with LoRA and a
  prefix, each behind a gate: `gated_layers`, `gated_encoder`
- every weight of the base: `whole`

`beside` is what all of them but PEFT's and `whole` have in common; `together` makes one method of
several.
"""
