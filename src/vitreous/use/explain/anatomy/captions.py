"""Name of a part -> its title and caption: what is shown, what is normal, what would be a warning sign, the source."""

from typing import NamedTuple


class Caption(NamedTuple):
    """The text of a part."""

    title: str
    shown: str
    normal: str
    warning: str
    source: str


CAPTIONS = {
    "filters": Caption(
        "Patch filters",
        "The patterns of pixels that the first layer looks for: the principal components of its filters, the most "
        "important first. Gray is 0. Of images with more than 3 channels, the first 3 are shown.",
        "The first ones are smooth: brightness, colors, edges and waves of low frequency.",
        "Only noise means that the first layer has hardly learned from the pixels: too little data or training.",
        "Dosovitskiy et al. 2021, figure 7, arXiv 2010.11929",
    ),
    "positions": Caption(
        "Similarity of position embeddings",
        "Each panel belongs to one patch of the image, and shows how similar its position embedding is to those of "
        "all patches. Large grids show some of the patches.",
        "Each panel is brightest at its own patch and fades with distance, often along its row and column.",
        "Panels that all look the same, or bright only at one point, mean that the model has not learned which "
        "patches are neighbors.",
        "Dosovitskiy et al. 2021, figure 7, arXiv 2010.11929",
    ),
    "attention": Caption(
        "Attention distance",
        "How far each head looks: the distance between a patch and the patches that it attends to, weighted by "
        "attention, averaged over patches and held-out images. Attention to class token and registers is left out.",
        "In the first blocks, some heads look near and others far; in the last blocks, most look far.",
        "First blocks without any head that looks near are typical of models with too little training data. All heads "
        "on the dotted line attend to everything equally.",
        "Dosovitskiy et al. 2021, figures 7 and 11, arXiv 2010.11929; Raghu et al. 2021, arXiv 2108.08810",
    ),
    "similarity": Caption(
        "Similarity of the patches of an image",
        "The mean cosine between the tokens of two patches of the same image, after each block.",
        "It changes from block to block and ends clearly below 1, because patches show different things.",
        "A rise to nearly 1 is called oversmoothing: the last blocks can no longer distinguish patches. Fewer blocks "
        "may be as accurate.",
        "Gong et al. 2021, arXiv 2104.12753; Zhou et al. 2021, arXiv 2103.11886",
    ),
    "outliers": Caption(
        "Patches with outlier norms",
        "Left: the share of patches whose token is more than 3 times as long as the median of its depth. Right: in "
        "which share of the images each place of the grid has one.",
        "None, or well below 1%.",
        "More, often in uniform background, means that the model stores global information in these patches. They "
        "spoil attention maps; train with registers (--model.num_registers 4) to avoid them.",
        "Darcet et al. 2023, arXiv 2309.16588",
    ),
    "path": Caption(
        "The path of the features through the blocks",
        "What the head would read after each block, from small points (before the first block) to large ones (after "
        "the last). Each line is the mean of the held-out images of a class, relative to that of all images.",
        "All classes begin at nearly one place and separate toward the end.",
        "Lines that never separate mean that the model cannot distinguish these classes; last blocks that do not move "
        "are not needed.",
        "Features of each depth after the final norm, as in Vilas et al. 2023, arXiv 2310.18969",
    ),
    "removal": Caption(
        "Accuracy without a head or a block",
        "How much accuracy is lost if the output of one head is set to 0 (left), or if one block adds nothing to its "
        "input (right). Intervals are paired over images; a dot marks heads whose interval excludes 0. With many "
        "heads, one in 20 gets a dot by chance.",
        "Most heads can be removed one at a time without a measurable loss; the first blocks matter most.",
        "A block whose removal costs nothing, or improves the accuracy, is not needed: train a smaller model.",
        "Michel et al. 2019, arXiv 1905.10650; Veit et al. 2016, arXiv 1605.06431; interval: Bonett and Price 2012",
    ),
    "map": Caption(
        "Held-out images by their features",
        "Images that the model finds similar are close together; colors are classes. In t-SNE, sizes of groups and "
        "distances between them mean nothing.",
        "One group for each class; images between groups are the difficult ones.",
        "A class in several groups, or groups that share a background, a camera or a border instead of a class.",
        "van der Maaten and Hinton 2008; Wattenberg et al. 2016, How to use t-SNE effectively",
    ),
    "nearest": Caption(
        "The most similar training images",
        "Some held-out images, and the training images whose features are most similar, with their cosine and class.",
        "The training images show the same kind of object in another picture.",
        "The same picture in both splits means that the accuracy is too high. Similar backgrounds with other objects "
        "show a shortcut. Neighbors of the predicted class, for a mistake, may be mislabeled.",
        "Papernot and McDaniel 2018, arXiv 1803.04765",
    ),
    "classes": Caption(
        "The patches that matter most for each class",
        "For each class, the images in which one patch has the largest share of the relevance; the number is this "
        "share. The patch is outlined, with its neighbors around it; white is outside the image.",
        "Parts of the object.",
        "The same border, watermark or background in many crops of a class: the model may use it instead of the "
        "object.",
        "relevance by the default method of `vitreous explain`",
    ),
}  # fmt: skip
"""In the order of the page."""
