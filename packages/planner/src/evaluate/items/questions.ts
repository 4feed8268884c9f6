import { itemsOf, type Written } from './types.js';

const QUESTIONS: readonly Written[] = [
  ['What is the capital of France?', 'Paris', 'Madrid', 'Berlin', 'Rome'],
  ['What is the capital of Japan?', 'Tokyo', 'Beijing', 'Seoul', 'Bangkok'],
  ['What is the capital of Italy?', 'Rome', 'Athens', 'Vienna', 'Lisbon'],
  ['Which planet do we live on?', 'Earth', 'Mars', 'Venus', 'Jupiter'],
  ['Which planet is known as the red planet?', 'Mars', 'Saturn', 'Venus', 'Neptune'],
  ['What is frozen water called?', 'Ice', 'Steam', 'Sand', 'Oil'],
  ['How many days are in a week?', 'Seven', 'Five', 'Ten', 'Twelve'],
  ['How many months are in a year?', 'Twelve', 'Ten', 'Seven', 'Twenty'],
  ['How many legs does a spider have?', 'Eight', 'Six', 'Four', 'Ten'],
  ['Which animal barks?', 'Dog', 'Cat', 'Cow', 'Duck'],
  ['Which animal gives us wool?', 'Sheep', 'Horse', 'Frog', 'Shark'],
  ['What do bees make?', 'Honey', 'Milk', 'Silk', 'Bread'],
  ['What color is the sky on a clear day?', 'Blue', 'Green', 'Brown', 'Purple'],
  ['What color is fresh snow?', 'White', 'Black', 'Orange', 'Green'],
  ['What is the opposite of hot?', 'Cold', 'Fast', 'Tall', 'Loud'],
  ['What is the opposite of up?', 'Down', 'Old', 'Far', 'Wet'],
  [
    'Who wrote the play Romeo and Juliet?',
    'William Shakespeare',
    'Charles Darwin',
    'Isaac Newton',
    'Leonardo da Vinci',
  ],
  [
    'Who was the first president of the United States?',
    'George Washington',
    'Albert Einstein',
    'Winston Churchill',
    'Napoleon Bonaparte',
  ],
  ['Which language is spoken in Brazil?', 'Portuguese', 'German', 'Russian', 'Greek'],
  ['In which country are the pyramids of Giza?', 'Egypt', 'Norway', 'Canada', 'Ireland'],
  ['On which continent is Kenya?', 'Africa', 'Europe', 'Asia', 'Australia'],
  ['Which gas do humans need to breathe?', 'Oxygen', 'Helium', 'Methane', 'Neon'],
  ['What is the chemical formula of water?', 'H2O', 'CO2', 'NaCl', 'O2'],
  ['Which organ pumps blood through the body?', 'Heart', 'Liver', 'Stomach', 'Skin'],
  ['With which organ do we see?', 'Eyes', 'Ears', 'Lungs', 'Feet'],
  ['What do you use to tell the time?', 'Clock', 'Spoon', 'Hammer', 'Pillow'],
  ['Which season comes after winter?', 'Spring', 'Summer', 'Autumn', 'Winter'],
  ['Which is the largest ocean?', 'Pacific', 'Atlantic', 'Indian', 'Arctic'],
  ['Which metal is attracted by a magnet?', 'Iron', 'Gold', 'Silver', 'Copper'],
  ['What is a baby cat called?', 'Kitten', 'Puppy', 'Calf', 'Lamb'],
  ['In which city is the Eiffel Tower?', 'Paris', 'London', 'New York', 'Moscow'],
  ['What does a baker bake?', 'Bread', 'Shoes', 'Bricks', 'Paper'],
];

const SHOTS =
  'Question: What is the capital of Spain?\nAnswer: Madrid\nQuestion: Which animal meows?\nAnswer: Cat\n';

/** Facts that nearly every text of general knowledge holds. */
export const questions = itemsOf(
  'questions',
  QUESTIONS,
  (question) => `${SHOTS}Question: ${question}\nAnswer:`,
);
