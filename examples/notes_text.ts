// Long texts with notes strewn through them, for questions about one of the notes. The prose was written for this file.

/** Paragraphs of plain prose, about a thousand tokens in all. */
const PARAGRAPHS = [
  "The coach set them down at the foot of the hill a little after noon, and went rattling away along the lower road " +
  "before either of them had found the right change for the boy who carried the bags.",
  "It was a grey day with very little wind. The smoke of the village stood straight up from its chimneys, and from the " +
  "yard behind the inn came the sound of somebody splitting wood, slowly, as if he meant to be at it until the evening.",
  "They took the path by the mill. The wheel was not turning, and the miller sat on the wall with his hat beside him, " +
  "eating bread and cold meat, and nodded to them without stopping, as a man nods who has seen a good many strangers " +
  "go by and has never been the better or the worse for one of them.",
  "Half a mile farther on the path divided, and there was no post to say which way it went. The elder was for the left " +
  "hand, because it was drier; the younger was for the right, because it went uphill, and the house, as they had both " +
  "been told, stood high. So they went to the right, and were wet to the knees before they had gone a hundred yards.",
  "Nobody had lived in the house since the old captain died. He had left it in good order, and the woman from the farm " +
  "came in on Saturdays to open the windows and light a fire in two of the rooms; but a house that is only aired once " +
  "in a week has a way of standing stiffly about its own furniture, like a servant who expects to be dismissed.",
  "The younger brother went from room to room and counted the clocks. There were five of them, and no two agreed. He " +
  "wound the one in the hall, which struck eleven at once, and then, as though it had thought better of it, said " +
  "nothing more until the following morning.",
  "In the library they found the table laid with papers, all tied with the same brown tape and all marked on the outer " +
  "leaf with a number. The first was missing, and so was the ninth. The rest were accounts of the garden: so much for " +
  "seed, so much for glass, so much for a man to mend the pump.",
  "They supped on what they had brought with them, and drank the captain's health in the captain's wine, of which there " +
  "was a great deal. After supper the rain came on in earnest. It ran in the gutters and knocked upon the shutters, and " +
  "they drew their chairs nearer to the fire and talked about their father, whom neither of them had liked.",
  "Towards ten there was a knock at the door. It was the woman from the farm, with a lantern and a sack over her " +
  "shoulders, come to say that the lower bridge was gone, and that if the gentlemen had thought of leaving in the " +
  "morning they had better think of something else.",
  "They thanked her, and she would not sit down, and stood there dripping upon the mat and looking about her with a good " +
  "deal of interest, as if she had never been in the room before. Then she said that it was a fine house, when all was " +
  "said, and that it wanted nothing but somebody to live in it.",
  "When she had gone the elder took up the candle. There was one door at the end of the passage that they had not " +
  "opened, and it seemed to him, now that the bridge was down and there was nothing else to be done, that they might as " +
  "well open it; but the key was not in the lock, nor upon the nail beside it, nor in any of the drawers.",
  "So they went to bed, each with a candle and a book, and neither of them read a page. The wind had risen. It went " +
  "round the house trying one window after another, and about the middle of the night it found the one that did not " +
  "shut, and came in, and walked up and down the passage until it was light.",
  "In the morning the whole valley was under water, as far as the mill. They could see the wall where the miller had " +
  "sat, and beyond it the tops of the hedges, and a single cow upon a hillock, looking about her with great patience, " +
  "as though she had expected something of the kind. The younger brother said that it was the finest view in the " +
  "county. The elder said that he would like his breakfast, and went down to see about the fire.",
];

/** Who owns what: the notes, each put before the paragraph of its number. */
const NOTES: readonly (readonly [paragraph: number, person: string, thing: string])[] = [
  [1, "Jane Castle", "silver key"],
  [2, "Philip Wood", "heavy coat"],
  [4, "Rachel Park", "blue letter"],
  [5, "Edward Hall", "old watch"],
  [7, "Lucy Grand", "broken chair"],
  [9, "Peter King", "red boat"],
];

/** The text: paragraphs with notes between them, and the beginning of the answer. */
export function textWithNotes(person: string): { text: string; thing: string } {
  const found = NOTES.find(([, name]) => name === person);
  if (!found) throw new RangeError(`There is no note about ${person}`);
  const parts = PARAGRAPHS.flatMap((paragraph, i) => [
    ...NOTES.filter(([at]) => at === i).map(([, name, thing]) => `Note: here is ${name}'s ${thing}.`),
    paragraph,
  ]);
  return { text: `\n\n${parts.join("\n\n")}\n\nAnswer: here is ${person}'s`, thing: found[2] };
}

/** What names and things of more notes are put together from; the examples' model knows these words from its training. */
const WORDS = {
  first: "Jane Philip Rachel Edward Lucy Peter Agnes Dick Helen Arthur Sylvia George Molly Frank Laura Tom"
    .split(" "),
  last:
    "Castle Wood Park Hall Grand King Brown Church Darrell Esmond Audley Warrington Jones Knight Street West"
      .split(" "),
  quality: "silver heavy blue old broken red green narrow warm black gold thin round secret fine grey".split(
    " ",
  ),
  noun: "key coat letter watch chair boat hat sword book glass ring box stick paper bell cup".split(" "),
};

/** The prose without notes. */
export function plainText(): string {
  return PARAGRAPHS.join("\n\n");
}

/** A prompt whose answer stands in one of its notes. Field names are those of a line of a `--needles` file. */
export interface NotePrompt {
  readonly prompt: string;
  /** What the note says, with the space before it. */
  readonly answer: string;
  /** Length class: tokens of the prompt, about. */
  readonly tokens: number;
  /** Where the note stands: 0 is the first, 1 the last one. */
  readonly depth: number;
}

/** How prompts are made. */
export interface NotePrompts {
  readonly count: number;
  /** Tokens of each, about. */
  readonly tokens: number;
  /** Others for another seed, always the same for one. */
  readonly seed: number;
  /** Tokens of a text. */
  readonly countTokens: (text: string) => number;
}

/** Prompts of shuffled prose between notes, whose names and things are combined anew; the depth asked for goes round. */
export function promptsWithNotes({ count, tokens, seed, countTokens }: NotePrompts): NotePrompt[] {
  const random = randomNumbers(seed);
  return Array.from({ length: count }, (_, index) => {
    const notes = Math.max(2, Math.min(16, 4 + Math.floor(tokens / 64)));
    // As in the model's training, no first name and no surname stands in two notes.
    const [first, last, quality, noun] = [WORDS.first, WORDS.last, WORDS.quality, WORDS.noun]
      .map((words) => shuffled(words, random));
    const owners = first.slice(0, notes).map((name, i) => `${name} ${last[i]}`);
    const owned = quality.slice(0, notes).map((word, i) => `${word} ${noun[i]}`);
    const lines = owners.map((person, i) => `Note: here is ${person}'s ${owned[i]}.`);
    const depth = index % 5 / 4;
    const asked = Math.round(depth * (notes - 1));
    const question = `Answer: here is ${owners[asked]}'s`;
    let left = tokens - countTokens([...lines, question].join("\n\n"));
    const prose: string[] = [];
    while (left > 0) {
      for (const paragraph of shuffled(PARAGRAPHS, random)) {
        // The last one ends where there is no more room.
        const words = paragraph.split(" ");
        while (words.length > 0 && countTokens(`\n\n${words.join(" ")}`) > left) words.length--;
        if (words.length > 0) prose.push(words.join(" "));
        left = words.length < paragraph.split(" ").length ? 0 : left - countTokens(`\n\n${paragraph}`);
        if (left <= 0) break;
      }
    }
    const gaps = lines.map(() => Math.floor(random() * (prose.length + 1))).sort((a, b) => a - b);
    const parts = [...prose, ""].flatMap((paragraph, i) => [
      ...lines.filter((_, note) => gaps[note] === i),
      ...(paragraph === "" ? [] : [paragraph]),
    ]);
    return { prompt: `\n\n${[...parts, question].join("\n\n")}`, answer: ` ${owned[asked]}`, tokens, depth };
  });
}

/** Numbers from 0 to below 1 that follow from a seed: a counter, hashed (the finaliser of MurmurHash3). */
export function randomNumbers(seed: number): () => number {
  let counter = seed >>> 0;
  return () => {
    counter = counter + 0x9e3779b9 >>> 0;
    let hash = Math.imul(counter ^ counter >>> 16, 0x85ebca6b);
    hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
    return ((hash ^ hash >>> 16) >>> 0) / 2 ** 32;
  };
}

/** The list in another order. */
function shuffled<T>(list: readonly T[], random: () => number): T[] {
  const keyed = list.map((item) => [random(), item] as const);
  return keyed.sort(([a], [b]) => a - b).map(([, item]) => item);
}
