import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

// The smallest model that is a real one: a table of word vectors as an ONNX graph with one Gather, and a tokenizer that
// splits at spaces. The protobuf is written by hand (onnx.proto3 of ONNX, fields by number).

const varint = (value: number): Buffer => {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest & 127) | 128);
  return Buffer.from([...bytes, rest]);
};
const number = (field: number, value: number) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field: number, value: Buffer | string) => {
  const content = Buffer.from(value as string);
  return Buffer.concat([varint(field * 8 + 2), varint(content.length), content]);
};
const message = (field: number, ...parts: Buffer[]) => bytes(field, Buffer.concat(parts));

const float = 1;
const int64 = 7;

/** ValueInfoProto: a name and the type of a tensor; dimensions by number or by name. */
const value = (field: number, name: string, type: number, shape: (number | string)[]) =>
  message(
    field,
    bytes(1, name),
    message(
      2,
      message(
        1,
        number(1, type),
        message(
          2,
          ...shape.map((size) => message(1, typeof size === 'number' ? number(1, size) : bytes(2, size))),
        ),
      ),
    ),
  );

/**
 * Writes a model into a directory, in the layout of the hub. Words that stand together in `meanings` have one vector.
 * @returns the dimensions of its vectors
 */
export function writeTinyModel(directory: string, meanings: string[][], dimensions = 24): number {
  const words = ['[UNK]', ...meanings.flat()];
  const table = new Float32Array(words.length * dimensions);
  words.forEach((word, row) => {
    const meaning = 1 + meanings.findIndex((some) => some.includes(word));
    for (let i = 0; i < dimensions; i++)
      table[row * dimensions + i] = Math.sin((meaning + 1) * (i + 1) * 1.7);
  });
  const graph = message(
    7,
    message(1, bytes(1, 'table'), bytes(1, 'input_ids'), bytes(2, 'last_hidden_state'), bytes(4, 'Gather')),
    bytes(2, 'tiny'),
    message(
      5,
      number(1, words.length),
      number(1, dimensions),
      number(2, float),
      bytes(8, 'table'),
      bytes(9, Buffer.from(table.buffer)),
    ),
    value(11, 'input_ids', int64, ['texts', 'words']),
    value(11, 'attention_mask', int64, ['texts', 'words']),
    value(12, 'last_hidden_state', float, ['texts', 'words', dimensions]),
  );
  const model = Buffer.concat([
    number(1, 8),
    bytes(2, 'test'),
    graph,
    message(8, bytes(1, ''), number(2, 13)),
  ]);
  mkdirSync(join(directory, 'onnx'), { recursive: true });
  writeFileSync(join(directory, 'onnx/model.onnx'), model);
  const write = (name: string, content: object) =>
    writeFileSync(join(directory, name), JSON.stringify(content));
  write('config.json', { model_type: 'bert', architectures: ['BertModel'], hidden_size: dimensions });
  write('tokenizer_config.json', {
    tokenizer_class: 'PreTrainedTokenizer',
    model_max_length: 128,
    unk_token: '[UNK]',
    pad_token: '[UNK]',
  });
  write('tokenizer.json', {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: { type: 'Lowercase' },
    pre_tokenizer: { type: 'Whitespace' },
    post_processor: null,
    decoder: null,
    model: {
      type: 'WordLevel',
      vocab: Object.fromEntries(words.map((word, i) => [word, i])),
      unk_token: '[UNK]',
    },
  });
  return dimensions;
}
