import { itemsOf, type Written } from './types.js';

const ENDINGS: readonly Written[] = [
  ['It started to rain, so Anna opened her', 'umbrella', 'window', 'book', 'mouth'],
  ['The soup was too hot, so he waited until it', 'cooled', 'boiled', 'burned', 'grew'],
  ['She was tired after the long day and went to', 'bed', 'work', 'school', 'war'],
  ['The dog was happy and wagged its', 'tail', 'head', 'foot', 'ear'],
  ['To cut the bread, he took a sharp', 'knife', 'spoon', 'pencil', 'stone'],
  ['The room was dark, so she turned on the', 'light', 'water', 'fan', 'radio'],
  ['He locked the door and put the key in his', 'pocket', 'mouth', 'garden', 'soup'],
  ['The baby was hungry and began to', 'cry', 'smile', 'walk', 'sleep'],
  ['The winter was so cold that the lake was covered with', 'ice', 'leaves', 'dust', 'flowers'],
  ['Early in the morning the farmer milked the', 'cows', 'horses', 'chickens', 'pigs'],
  ['She folded the letter and put it into an', 'envelope', 'oven', 'apple', 'ear'],
  ['The bird built its nest in a', 'tree', 'river', 'fire', 'cave'],
  ['His tooth hurt, so he went to see the', 'dentist', 'lawyer', 'teacher', 'barber'],
  ['The glass fell on the stone floor and', 'broke', 'melted', 'opened', 'bounced'],
  ['They were thirsty and asked for some', 'water', 'bread', 'money', 'help'],
  ['On a clear night you can see the moon and the', 'stars', 'clouds', 'sun', 'rain'],
  ['The shirt was dirty, so she', 'washed it', 'read it', 'ate it', 'wrote it'],
  ['The plant dried up because nobody gave it any', 'water', 'light', 'food', 'money'],
  ['It was freezing outside, so he put on his', 'coat', 'shorts', 'watch', 'sandals'],
  ['The cat sat still and then jumped to catch the', 'mouse', 'dog', 'train', 'house'],
  ['She read the book from the first page to the', 'last', 'second', 'next', 'same'],
  ['On the beach the children built a castle out of', 'sand', 'stone', 'wood', 'water'],
  ['He could not reach the top shelf, so he stood on a', 'chair', 'plate', 'bed', 'bottle'],
  ['The house was burning, so they called the', 'firefighters', 'teachers', 'farmers', 'neighbors'],
  ['After washing her hands she dried them with a', 'towel', 'sponge', 'brush', 'knife'],
  ['The train was late, and people waited for it at the', 'station', 'airport', 'harbor', 'hospital'],
  ['The suitcase was too heavy for her to', 'lift', 'see', 'open', 'buy'],
  ['He had no cash, so he paid with his', 'card', 'dog', 'shoes', 'name'],
  ['The ice cream was left in the sun and', 'melted', 'froze', 'dried', 'burned'],
  ['She forgot her glasses and could not', 'read', 'hear', 'walk', 'smell'],
  ['The car stopped in the middle of the road because it had run out of', 'gas', 'time', 'money', 'oil'],
  ['He was afraid of heights and did not want to climb the', 'ladder', 'garden', 'table', 'bed'],
];

/** Beginnings of sentences, and words to end them, one of which makes the most sense. */
export const cloze = itemsOf('cloze', ENDINGS);
