"""Words that an answer may hold: names, functions, connectors, scales, and units that change nothing."""

NAMES = {
    "greek": (
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
        "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    ),
    "capital greek": ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega"),
}  # fmt: skip
FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh", "ln", "log", "exp")
)
CONNECTORS = frozenset(("and", "or"))
SEPARATORS = (",", "and", "or")
WORD_SIGNS = {
    "percent": "%", "percentage": "%", "pct": "%", "degrees": "circ", "degree": "circ", "deg": "circ", "pi": "pi",
    "infinity": "infty", "inf": "infty", "oo": "infty", "union": "cup", "equals": "=", "emptyset": "emptyset",
}  # fmt: skip
NUMBER_WORDS = (
    "zero", "-", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
"""Without "one", which is not always a number."""
SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
}  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


UNITS = _words(
    """
    m cm mm km dm nm ft feet foot in inch inches yd yard yards mi mile miles mph kmh kph kg g mg lb lbs pound pounds oz
    ounce ounces ton tons s sec secs second seconds min mins minute minutes h hr hrs hour hours day days week
    weeks month
    months year years l ml liter liters litre litres gallon gallons cup cups quart quarts sq cubic square unit units
    dollar dollars cent cents usd euro euros rupee rupees yen rad rads radian radians meter meters metre metres
    of the to by an a
    centimeter centimeters kilometer kilometers gram grams kilogram kilograms per point points th st nd rd old
    """
)
REFUSED = _words(
    """
    yes
    not no none if when unless except otherwise mod modulo where with for such that all any some every each times plus
    minus over divided squared cubed factorial half quarter third twice double less more least most than at
    greater about
    approximately nearly almost between either both is are was be does exist undefined impossible prime odd even
    integer integers real multiple multiples power powers positive negative nonnegative nonzero infinite infinitely many
    permutation permutations permuting permuted cyclic cyclically order reordering reorderings rearrangement
    rearrangements symmetric likewise similarly conjugate conjugates their its others etc
    """
)
"""Words that say something: a text with one of them is never read as the number beside it."""
LEADS = _words("is are answer answers solution solutions value values result equals equal total probability")
"""A text may begin with words that end in one of these: "the answer is"."""
CLAUSES = frozenset(("for", "where", "with", "forall"))
CLAUSE_WORDS = _words(
    """
    all any every each real reals number numbers constant constants arbitrary is are a an be may can parameter being
    function and integer integers positive some
    """
)
"""A clause of these words and symbols alone takes nothing away from the expression before it."""
CLAUSE_BOUNDS = _words("nonnegative nonzero natural rational complex negative odd even prime")
"""Words that bound a free constant."""
GOLD_BOUNDS = CLAUSE_BOUNDS - _words("negative odd even prime")
"""Those that an answer may leave out."""
FREE = _words("constant constants arbitrary parameter")
TRAILS = _words(
    """
    is are the only unique solution solutions answer answers possible value values total altogether maximum minimum
    largest smallest greatest
    """
)
"""Words that may end a text whatever the gold is: "is the only solution"."""
QUANTIFIERS = _words("all every any integers integer numbers reals real natural each")
"""Words before the symbol of a relation that say no more than it does: "all integers n >= 2"."""
