// Text: tokenizers, chat templates, streaming decoding and stop strings. Knows nothing of GPUs or models.

export { type ByteDecoder } from "./byte_decoder.ts";
export { type ChatMessage, type ChatRole, renderChat, type RenderChatOptions } from "./chat_template.ts";
export {
  createDetokenizer,
  type Detokenizer,
  type DetokenizerOptions,
  type DetokenizerPiece,
} from "./detokenizer.ts";
export { type SpecialTokenFilter } from "./special_tokens.ts";
export { createStopMatcher, type StopMatcher, type StopPiece } from "./stop_strings.ts";
export {
  createTokenizer,
  type DecodeOptions,
  type EncodeOptions,
  loadTokenizer,
  type Tokenizer,
} from "./tokenizer.ts";
export { type TokenizerFiles } from "./tokenizer_json.ts";
