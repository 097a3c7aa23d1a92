"""A layer in PyTorch that shares no code with the project, and bugs in it that were written without a look at any list.

What the suite says of them is what it says of a stranger's bugs. Named here by their files, so that the names can be
had without torch. On the command line, from the root of the repository:

    PYTHONPATH=conformance/house moespec check held_out.bugs_router:GroupsIgnoreTheBias

and, with nothing but the layer to be asked, `held_out.black_box:GroupsIgnoreTheBias`.
"""

BUGS = {
    "bugs_router": (
        "GroupsIgnoreTheBias",
        "SecondBestSkipsEquals",
        "NegativeKeysRunBackwards",
        "LowBitsHoldTheId",
        "IdsInOneByte",
        "TailExpertsUnseen",
        "HolesWeighInTheSum",
        "ScaleInBfloat16",
        "MaskSilencesShared",
        "BiasLearnsInForward",
    ),
    "bugs_rows": (
        "IdleExpertsCompacted",
        "OneRowTailSkipped",
        "BoxesOverflow",
        "SlotsByConfigWidth",
        "InverseStartsAtZero",
        "LastFirstWithinExpert",
        "RoundRobinOwners",
        "RouterGradientOfOneShard",
        "ShardsRoundDown",
    ),
    "bugs_expert": (
        "SharedExpertsAveraged",
        "WeightBeforeClamp",
        "WeightsPackedOnce",
        "GradientsPileUp",
        "StaleIdleGradients",
    ),
    "bugs_backward": (
        "HoleErasesExpertZero",
        "DotWithWeightedOutput",
        "ProductInPlace",
        "LastTileWins",
        "ClampedTailLoads",
        "RecomputeRoutesAnew",
        "ClampLeaks",
        "LimitIsBeyond",
        "ZeroScoreDividesByZero",
        "RouterGradientThroughBfloat16",
    ),
    "bugs_digits": (
        "TwoTermsAndShortLog2e",
        "HalfWeightsAndHidden",
        "CutInputsAndCoarseReciprocal",
        "ThinGradients",
        "HalfScoresAndShortSum",
        "PartialsInBfloat16",
    ),
}
HONEST = (
    "Grouped",
    "PlainAutograd",
    "LoopOverExperts",
    "Dense",
    "SplitK",
    "Float64",
    "Ranks",
    "StableSort",
    "StoreEachStep",
)
