// Where a stream of UTF-8 bytes may be cut without cutting a character.

/** Turns bytes into text: invalid sequences become U+FFFD, and a byte order mark is text like any other. */
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * The text of UTF-8 bytes, every maximal invalid part as one U+FFFD (WHATWG Encoding Standard).
 *
 * @param bytes Whole characters, or bytes that nothing will complete any more.
 */
export function decodeUtf8(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/**
 * How many bytes at the end begin a character that further bytes can still complete: 0 to 3.
 *
 * Bytes that no continuation makes valid (0xFF, the 0xC0 of an overlong form, half of a surrogate) do not count.
 *
 * @param bytes UTF-8 bytes, in any state.
 */
export function incompleteTail(bytes: Uint8Array): number {
  for (let count = 1; count <= 3 && count <= bytes.length; count++) {
    const lead = bytes[bytes.length - count];
    if (lead >= 0x80 && lead < 0xc0) continue; // a continuation: its lead byte stands before
    const complete = characterLength(lead) <= count;
    if (complete) return 0;
    return count === 1 || canFollow(lead, bytes[bytes.length - count + 1]) ? count : 0;
  }
  return 0;
}

/** Bytes of the character that a lead byte begins; 1 for bytes that cannot begin a longer one. */
function characterLength(lead: number): number {
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 1;
}

/** Whether a second byte is allowed: some lead bytes take half the range only, so that no code point has two forms. */
function canFollow(lead: number, second: number): boolean {
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second <= 0x9f;
  if (lead === 0xf0) return second >= 0x90;
  if (lead === 0xf4) return second <= 0x8f;
  return true;
}
