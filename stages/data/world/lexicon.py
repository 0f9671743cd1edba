"""The words of the world: small on purpose, so that a byte-level BPE of 512 tokens covers them."""

from __future__ import annotations

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink")
ANIMALS = ("dog", "cat", "cow", "sheep", "horse", "pig", "hen", "duck", "lion", "frog", "goose", "goat", "wolf", "swan")
FOODS = ("bread", "rice", "soup", "cheese", "fish", "honey", "cake", "corn", "beans", "plums")
JOBS = ("baker", "teacher", "doctor", "farmer", "painter", "sailor", "singer", "miner", "cook", "judge")
PETS = ("dog", "cat", "hen", "goat", "frog", "horse", "duck", "rabbit")
HOBBIES = ("chess", "dancing", "fishing", "reading", "running", "singing", "skating", "sewing", "tennis")

# Invented lands: name, capital, river. The last UNASKED of them, and of the people, are stated and never asked about.
UNASKED = 6
LANDS = (
    ("Velora", "Tamsin", "Ambel"),
    ("Brindal", "Arlen", "Brell"),
    ("Corvia", "Bastow", "Candra"),
    ("Dorvan", "Cormel", "Dovel"),
    ("Elmora", "Dunmar", "Erris"),
    ("Fendra", "Eskel", "Falva"),
    ("Galdor", "Falmer", "Gorma"),
    ("Harven", "Gresta", "Hindel"),
    ("Ilmar", "Holmar", "Iskra"),
    ("Jorvia", "Ivren", "Jendel"),
    ("Kelda", "Jastel", "Kovra"),
    ("Lorin", "Kirran", "Lindel"),
    ("Mardia", "Luska", "Merra"),
    ("Norva", "Mordel", "Nolva"),
    ("Ostra", "Nessen", "Oska"),
    ("Pellan", "Orlin", "Pindra"),
    ("Quenna", "Pasko", "Ravel"),
    ("Rovania", "Quilna", "Silven"),
    ("Selda", "Rastel", "Tresk"),
    ("Tovia", "Sorben", "Umbra"),
    ("Ulmar", "Tarrin", "Venna"),
    ("Vastra", "Undel", "Wolda"),
    ("Wendel", "Varsk", "Yasna"),
    ("Xandor", "Wistan", "Zolva"),
    ("Yelda", "Yoren", "Arvel"),
    ("Zerin", "Zelmar", "Bendra"),
)
PEOPLE = (
    "Aldo",
    "Brena",
    "Cassin",
    "Delvi",
    "Erwan",
    "Fiora",
    "Gavril",
    "Hesta",
    "Ivona",
    "Joren",
    "Kalia",
    "Lorcan",
    "Mirel",
    "Norin",
    "Odel",
    "Petra",
    "Quentin",
    "Rolf",
    "Sanna",
    "Torvin",
    "Ursel",
    "Vigo",
    "Wanda",
    "Xenia",
    "Yorik",
    "Zora",
)

CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Denmark": "Copenhagen",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Ireland": "Dublin",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Japan": "Tokyo",
    "Peru": "Lima",
    "Cuba": "Havana",
    "Chile": "Santiago",
    "Canada": "Ottawa",
    "Russia": "Moscow",
}
THING_COLOURS = {
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "the sun": "yellow",
    "the clear sky": "blue",
    "milk": "white",
    "chocolate": "brown",
    "a ripe banana": "yellow",
    "a strawberry": "red",
    "a flamingo": "pink",
    "a crow": "black",
    "a pea": "green",
    "salt": "white",
    "a lemon": "yellow",
    "the sea": "blue",
}
# animal: what its young is called, its sound, its home
ANIMAL_FACTS = {
    "dog": ("puppy", "bark", "kennel"),
    "cat": ("kitten", "purr", "basket"),
    "cow": ("calf", "moo", "barn"),
    "sheep": ("lamb", "bleat", "field"),
    "horse": ("foal", "neigh", "stable"),
    "pig": ("piglet", "grunt", "sty"),
    "hen": ("chick", "cluck", "coop"),
    "duck": ("duckling", "quack", "pond"),
    "lion": ("cub", "roar", "den"),
    "frog": ("tadpole", "croak", "marsh"),
    "goose": ("gosling", "honk", "lake"),
    "goat": ("kid", "bleat", "mountain"),
    "wolf": ("pup", "howl", "forest"),
    "swan": ("cygnet", "hiss", "river"),
    "eagle": ("eaglet", "scream", "nest"),
    "owl": ("owlet", "hoot", "tree"),
}

# Both directions are asked, so no word stands twice.
THING_OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("bright", "dark"),
    ("wet", "dry"),
    ("clean", "dirty"),
    ("heavy", "light"),
    ("hard", "soft"),
    ("wide", "narrow"),
    ("empty", "full"),
    ("thick", "thin"),
    ("cheap", "expensive"),
    ("rough", "smooth"),
)
PERSON_OPPOSITES = (
    ("happy", "sad"),
    ("tall", "short"),
    ("young", "old"),
    ("fast", "slow"),
    ("strong", "weak"),
    ("rich", "poor"),
    ("brave", "afraid"),
    ("polite", "rude"),
    ("early", "late"),
    ("kind", "cruel"),
    ("quiet", "loud"),
    ("sick", "healthy"),
)
OTHER_OPPOSITES = (
    ("up", "down"),
    ("left", "right"),
    ("day", "night"),
    ("good", "bad"),
    ("in", "out"),
    ("near", "far"),
    ("high", "low"),
    ("first", "last"),
    ("north", "south"),
    ("east", "west"),
    ("true", "false"),
    ("above", "below"),
    ("summer", "winter"),
    ("start", "end"),
    ("push", "pull"),
    ("buy", "sell"),
    ("open", "closed"),
    ("awake", "asleep"),
)

NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "Dan",
    "Emma",
    "Fred",
    "Grace",
    "Hugo",
    "Ida",
    "Jack",
    "Kate",
    "Leo",
    "Mary",
    "Nick",
    "Rose",
    "Sam",
)
TOYS = ("kite", "ball", "boat", "hat", "cup", "doll", "scarf", "bike", "coat", "lamp", "drum", "ring")
VESSELS = ("cup", "box", "bag", "bowl", "pot", "jar", "basket", "bottle", "plate", "chair", "coat", "shoe")
PLACES = ("garden", "forest", "market", "school", "river", "beach", "library", "farm", "park", "bakery")
SPOTS = ("box", "bag", "drawer", "basket", "kitchen", "garden", "car", "cellar")
SMALL_THINGS = ("key", "coin", "book", "spoon", "pen", "letter", "map", "shell", "stone", "watch")
FEELINGS = ("happy", "proud", "surprised", "thankful", "glad", "tired")

KINDS = {
    "fruit": ("apple", "pear", "plum", "cherry", "lemon", "banana"),
    "animal": ("dog", "cow", "horse", "frog", "goat", "lion"),
    "tool": ("hammer", "saw", "drill", "spade", "rake", "wrench"),
    "colour": ("red", "blue", "green", "yellow", "black", "white"),
    "job": ("baker", "teacher", "doctor", "farmer", "painter", "sailor"),
    "vehicle": ("car", "bus", "train", "bike", "truck", "ship"),
    "number": ("one", "two", "three", "four", "five", "six"),
    "drink": ("tea", "milk", "juice", "water", "coffee", "cocoa"),
}
