import { itemsOf, type Written } from './types.js';

/** What is to be repeated, and copies of it with one fault: an element changed, two swapped, one left out. */
const COPIES: readonly Written[] = [
  ['red green blue', 'red green blue', 'red blue green', 'red green black', 'green red blue'],
  ['cat dog horse', 'cat dog horse', 'cat horse dog', 'cat dog house', 'dog cat horse'],
  ['7 3 9 1', '7 3 9 1', '7 9 3 1', '7 3 9 2', '3 7 9 1'],
  ['apple, pear, plum', 'apple, pear, plum', 'apple, plum, pear', 'apple, peach, plum', 'pear, apple, plum'],
  ['4821', '4821', '4281', '4827', '8421'],
  [
    'north south east west',
    'north south east west',
    'north east south west',
    'north south west east',
    'south north east west',
  ],
  ['Maria, Paul, John', 'Maria, Paul, John', 'Maria, John, Paul', 'Mary, Paul, John', 'Paul, Maria, John'],
  ['5 5 2 8', '5 5 2 8', '5 2 5 8', '5 5 8 2', '5 5 2 6'],
  ['table chair lamp', 'table chair lamp', 'table lamp chair', 'table chair desk', 'chair table lamp'],
  ['90125', '90125', '91025', '90152', '90126'],
  [
    'fish bird snake frog',
    'fish bird snake frog',
    'fish snake bird frog',
    'fish bird snake dog',
    'bird fish snake frog',
  ],
  ['one three five', 'one three five', 'one five three', 'one three four', 'three one five'],
  ['b d f h', 'b d f h', 'b f d h', 'b d h f', 'b d f g'],
  [
    'Monday Friday Sunday',
    'Monday Friday Sunday',
    'Monday Sunday Friday',
    'Friday Monday Sunday',
    'Monday Friday Saturday',
  ],
  ['3017', '3017', '3107', '3071', '3018'],
  ['stone water fire', 'stone water fire', 'stone fire water', 'stone water air', 'water stone fire'],
  ['k 4 m 2', 'k 4 m 2', 'k 2 m 4', 'm 4 k 2', 'k 4 m 3'],
  ['Rome, Paris, Oslo', 'Rome, Paris, Oslo', 'Rome, Oslo, Paris', 'Paris, Rome, Oslo', 'Rome, Paris, Bonn'],
  ['blue blue red', 'blue blue red', 'blue red blue', 'red blue blue', 'blue blue blue'],
  ['66 12 40', '66 12 40', '66 40 12', '12 66 40', '66 12 41'],
  [
    'spoon fork knife cup',
    'spoon fork knife cup',
    'spoon knife fork cup',
    'spoon fork cup knife',
    'fork spoon knife cup',
  ],
  ['ten two six', 'ten two six', 'ten six two', 'two ten six', 'ten two five'],
  ['17.25', '17.25', '17.52', '71.25', '17.24'],
  ['x y z y', 'x y z y', 'x z y y', 'x y y z', 'x y z x'],
  ['hat shoe glove', 'hat shoe glove', 'hat glove shoe', 'shoe hat glove', 'hat shoe scarf'],
  ['55081', '55081', '55801', '50581', '55082'],
  ['wind rain snow', 'wind rain snow', 'wind snow rain', 'rain wind snow', 'wind rain sun'],
  ['Emma Liam Noah', 'Emma Liam Noah', 'Emma Noah Liam', 'Liam Emma Noah', 'Emma Liam Mia'],
  ['8 0 8 6', '8 0 8 6', '8 8 0 6', '8 0 6 8', '8 0 8 5'],
  [
    'iron gold silver tin',
    'iron gold silver tin',
    'iron silver gold tin',
    'gold iron silver tin',
    'iron gold tin silver',
  ],
  ['oak elm pine', 'oak elm pine', 'oak pine elm', 'elm oak pine', 'oak elm birch'],
  ['2640', '2640', '2460', '2604', '2641'],
];

const SHOTS =
  'Input: sun moon star\nOutput: sun moon star\nInput: 6 1 4\nOutput: 6 1 4\nInput: milk, egg, salt\nOutput: milk, egg, salt\n';

export const copying = itemsOf('copying', COPIES, (list) => `${SHOTS}Input: ${list}\nOutput:`);
