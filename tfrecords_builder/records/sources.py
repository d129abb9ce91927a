"""Where the images of a record set come from: who made them, the terms of use, how to cite them.

The facts are those of the owners' pages and of the papers that are cited, such as Irvin et al. 2019
(https://arxiv.org/abs/1901.07031) and Stanford AIMI's page of CheXpert; Wang et al. 2017
(https://arxiv.org/abs/1705.02315) and the NIH Clinical Center's download page. Where these disagree with this module,
they are right.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Source:
    """One source of images. Empty text means that it is not known or that there is none."""

    name: str
    collection: str  # how the images came about
    labelling: str  # who or what labelled them
    license: str  # its name, or the terms in one line
    terms: str  # what a user must, may and must not do
    creator: str = ""
    url: str = ""  # where to get the data
    published: str = ""  # date of the first publication, YYYY-MM-DD
    citation: str = ""  # BibTeX
    patients: bool = True  # whether the images show people


_SOURCES: dict[str, Source] = {
    "chexpert": Source(
        name="CheXpert",
        creator="Stanford Machine Learning Group",
        url="https://aimi.stanford.edu/datasets/chexpert-chest-x-rays",
        published="2019-01-21",
        collection=(
            "Chest radiographs taken at Stanford Hospital between October 2002 and July 2017, of inpatients and "
            "outpatients, collected in retrospect together with their radiology reports: 224,316 radiographs of "
            "65,240 patients."
        ),
        labelling=(
            "The labels of train.csv were extracted from the text of the radiology reports by rules; a label is "
            "positive, negative, uncertain or not mentioned. Three radiologists labelled the images of valid.csv."
        ),
        license="Stanford University School of Medicine CheXpert Dataset Research Use Agreement",
        terms=(
            "Non-commercial research only, under Stanford's research use agreement, which every user accepts when "
            "getting the data from Stanford AIMI. The agreement forbids passing on the data or any part of it, and so "
            "this record set, to others."
        ),
        citation="""\
@inproceedings{irvin2019chexpert,
  title     = {{CheXpert}: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison},
  author    = {Irvin, Jeremy and Rajpurkar, Pranav and Ko, Michael and others},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume    = {33},
  pages     = {590--597},
  year      = {2019},
  doi       = {10.1609/aaai.v33i01.3301590}
}""",
    ),
    "rsna_brain": Source(
        name="RSNA Intracranial Hemorrhage Detection (2019)",
        creator="Radiological Society of North America",
        url="https://www.kaggle.com/c/rsna-intracranial-hemorrhage-detection",
        collection="Slices of computed tomography of heads, from hospitals of several countries.",
        labelling="Neuroradiologists marked on each slice which of five kinds of haemorrhage it shows.",
        license="Terms of the competition: non-commercial and academic research",
        terms=(
            "The data are given for the use that the rules of the competition allow, non-commercial and academic "
            "research; read the rules there and cite Flanders et al."
        ),
        citation="""\
@article{flanders2020hemorrhage,
  title   = {Construction of a Machine Learning Dataset through Collaboration: The {RSNA} 2019 Brain {CT}
             Hemorrhage Challenge},
  author  = {Flanders, Adam E. and Prevedello, Luciano M. and Shih, George and others},
  journal = {Radiology: Artificial Intelligence},
  volume  = {2},
  number  = {3},
  pages   = {e190211},
  year    = {2020},
  doi     = {10.1148/ryai.2020190211}
}""",
    ),
    "chestxray": Source(
        name="NIH ChestX-ray14 (ChestX-ray8)",
        creator="NIH Clinical Center",
        url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        published="2017-09-27",
        collection=(
            "De-identified frontal chest radiographs of the NIH Clinical Center: 112,120 images of 30,805 patients."
        ),
        labelling=(
            "The labels were mined from the radiology reports with natural language processing; the authors expect "
            "more than 90% of them to be right. The reports are not public. Findings that have no counterpart among "
            "CheXpert's labels are kept beside them, as extra findings."
        ),
        license="No restriction on use; attribution requested by the NIH Clinical Center",
        terms=(
            "Use is unrestricted. The NIH Clinical Center asks to link the download site "
            "(https://nihcc.app.box.com/v/ChestXray-NIHCC), to acknowledge the NIH Clinical Center as the provider of "
            "the data and to cite Wang et al. 2017."
        ),
        citation="""\
@inproceedings{wang2017chestxray8,
  title     = {{ChestX-ray8}: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification
               and Localization of Common Thorax Diseases},
  author    = {Wang, Xiaosong and Peng, Yifan and Lu, Le and Lu, Zhiyong and Bagheri, Mohammadhadi and
               Summers, Ronald M.},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {3462--3471},
  year      = {2017},
  doi       = {10.1109/CVPR.2017.369}
}""",
    ),
    "chexlocalize": Source(
        name="CheXpert's test and validation set, labels of CheXlocalize",
        creator="Stanford Machine Learning Group",
        url="https://stanfordaimi.azurewebsites.net/datasets/23c56a0d-15de-405b-87c8-99c30138950c",
        collection=(
            "Chest radiographs of Stanford Hospital: 668 of 500 patients in CheXpert's test set, 234 of 200 patients "
            "in its validation set."
        ),
        labelling="The labels are what the majority of several radiologists said of an image.",
        license="Stanford University Dataset Research Use Agreement",
        terms=(
            "Research only, under the agreement which every user accepts when getting the data from Stanford AIMI. It "
            "forbids passing on the data or any part of it, and so this record set, to others."
        ),
        citation="""\
@article{saporta2022benchmarking,
  title   = {Benchmarking saliency methods for chest X-ray interpretation},
  author  = {Saporta, Adriel and Gui, Xiaotong and Agrawal, Ashwin and others},
  journal = {Nature Machine Intelligence},
  volume  = {4},
  pages   = {867--878},
  year    = {2022},
  doi     = {10.1038/s42256-022-00536-x}
}""",
    ),
    "chexpert_plus": Source(
        name="CheXpert Plus",
        creator="Stanford Center for Artificial Intelligence in Medicine and Imaging",
        url="https://aimi.stanford.edu/datasets/chexpert-plus",
        collection=(
            "The chest radiographs of CheXpert, with the reports and demographic data: 223,462 pairs of 64,725 "
            "patients."
        ),
        labelling="The labels were extracted from the text of the radiology reports by CheXbert.",
        license="Stanford University Dataset Research Use Agreement",
        terms=(
            "Non-commercial research only, under the agreement which every user accepts when getting the data from "
            "Stanford AIMI. It forbids passing on the data or any part of it, and so this record set, to others."
        ),
        citation="""\
@article{chambon2024chexpertplus,
  title   = {{CheXpert Plus}: Augmenting a Large Chest X-ray Dataset with Text Radiology Reports, Patient Demographics
             and Additional Image Formats},
  author  = {Chambon, Pierre and Delbrouck, Jean-Benoit and Sounack, Thomas and others},
  journal = {arXiv preprint arXiv:2405.19538},
  year    = {2024}
}""",
    ),
    "mimic_cxr": Source(
        name="MIMIC-CXR-JPG",
        creator="MIT Laboratory for Computational Physiology",
        url="https://physionet.org/content/mimic-cxr-jpg/",
        collection=(
            "De-identified chest radiographs of the emergency department of Beth Israel Deaconess Medical Center, "
            "Boston, 2011 to 2016: 377,110 images of 227,827 studies, as JPEG."
        ),
        labelling="The labels of a study were extracted from its radiology report by CheXpert's labeler (or NegBio).",
        license="PhysioNet Credentialed Health Data License",
        terms=(
            "For credentialed users who signed PhysioNet's data use agreement. It forbids passing on the data, and so "
            "this record set, to others, and any attempt to identify a patient."
        ),
        citation="""\
@article{johnson2019mimiccxrjpg,
  title   = {{MIMIC-CXR-JPG}, a large publicly available database of labeled chest radiographs},
  author  = {Johnson, Alistair E. W. and Pollard, Tom J. and Greenbaum, Nathaniel R. and others},
  journal = {arXiv preprint arXiv:1901.07042},
  year    = {2019}
}""",
    ),
    "padchest": Source(
        name="PadChest",
        creator="Medical Imaging Databank of the Valencia Region (BIMCV)",
        url="https://bimcv.cipf.es/bimcv-projects/padchest/",
        collection=(
            "Chest radiographs of the Hospital San Juan, Alicante, 2009 to 2017: more than 160,000 images of 67,000 "
            "patients."
        ),
        labelling=(
            "Physicians labelled 27% of the reports; the others were labelled by a recurrent network that learned from "
            "them. Findings that have no counterpart in the label set are kept beside it, as extra findings."
        ),
        license="PadChest Dataset Research Use Agreement",
        terms="Research only, under the agreement which every user accepts when getting the data from BIMCV.",
        citation="""\
@article{bustos2020padchest,
  title   = {{PadChest}: A large chest x-ray image dataset with multi-label annotated reports},
  author  = {Bustos, Aurelia and Pertusa, Antonio and Salinas, Jose-Maria and de la Iglesia-Vay{\\'a}, Maria},
  journal = {Medical Image Analysis},
  volume  = {66},
  pages   = {101797},
  year    = {2020},
  doi     = {10.1016/j.media.2020.101797}
}""",
    ),
    "rsna_pneumonia": Source(
        name="RSNA Pneumonia Detection Challenge",
        creator="Radiological Society of North America, images of the NIH Clinical Center",
        url="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
        collection="Frontal chest radiographs out of NIH ChestX-ray14, as DICOM.",
        labelling=(
            "Radiologists of the RSNA and the Society of Thoracic Radiology drew boxes around opacities that may be a "
            "pneumonia, and told normal images from others."
        ),
        license="Rules of the challenge; the images under NIH's terms",
        terms=(
            "The challenge's rules allow non-commercial research and teaching. The NIH Clinical Center asks to be "
            "acknowledged as the provider of the images."
        ),
        citation="""\
@article{shih2019augmenting,
  title   = {Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible
             Pneumonia},
  author  = {Shih, George and Wu, Carol C. and Halabi, Safwan S. and others},
  journal = {Radiology: Artificial Intelligence},
  volume  = {1},
  number  = {1},
  pages   = {e180041},
  year    = {2019},
  doi     = {10.1148/ryai.2019180041}
}""",
    ),
    "siim_acr": Source(
        name="SIIM-ACR Pneumothorax Segmentation",
        creator="Society for Imaging Informatics in Medicine, images of the NIH Clinical Center",
        url="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
        collection="Frontal chest radiographs out of NIH ChestX-ray14, as DICOM.",
        labelling=(
            "Radiologists drew the outlines of pneumothoraces. Of other findings the labels say nothing: an image "
            "without a pneumothorax may have any."
        ),
        license="Rules of the challenge; the images under NIH's terms",
        terms=(
            "The challenge's rules allow non-commercial research and teaching. The NIH Clinical Center asks to be "
            "acknowledged as the provider of the images."
        ),
    ),
    "vindr_cxr": Source(
        name="VinDr-CXR",
        creator="Vingroup Big Data Institute",
        url="https://physionet.org/content/vindr-cxr/",
        collection=(
            "Frontal chest radiographs of the Hospital 108 and the Hanoi Medical University Hospital: 15,000 for "
            "training and 3,000 for test, as DICOM."
        ),
        labelling=(
            "Three of 17 radiologists read each training image; it has the findings that more than half of them saw. "
            "The labels of test images are the consensus of five."
        ),
        license="PhysioNet Credentialed Health Data License",
        terms=(
            "For credentialed users who signed PhysioNet's data use agreement. It forbids passing on the data, and so "
            "this record set, to others, and any attempt to identify a patient."
        ),
        citation="""\
@article{nguyen2022vindrcxr,
  title   = {{VinDr-CXR}: An open dataset of chest X-rays with radiologist's annotations},
  author  = {Nguyen, Ha Q. and Lam, Khanh and Le, Linh T. and others},
  journal = {Scientific Data},
  volume  = {9},
  pages   = {429},
  year    = {2022},
  doi     = {10.1038/s41597-022-01498-w}
}""",
    ),
    "phantom": Source(
        name="Simulated hospital {}",
        creator="tfcxr",
        collection="Simulated by `tfcxr phantom`: X-ray projections through random 3-D anatomy. They show nobody.",
        labelling=(
            "The labels of the simulated findings, in the label table that the simulator writes as a hospital would."
        ),
        license="No restriction on use; simulated by tfcxr, whose code is under Apache-2.0",
        terms="No restriction: the images are simulated. The code that simulates them is under Apache-2.0.",
        patients=False,
    ),
    "synthetic": Source(
        name="Synthetic images of the run {}",
        collection="Drawn by a class-conditional GAN (`tfcxr generate`) that was trained on other images.",
        labelling=(
            "The labels are the condition that the GAN was given for each image; nobody has checked that the image "
            "shows them."
        ),
        license="The terms of the data that the GAN was trained on",
        terms=(
            "The images inherit the terms of the data that the GAN was trained on: look them up before you use or "
            "pass on this set. A GAN can reproduce images of its training set, so synthetic is not the same as "
            "anonymous."
        ),
        patients=False,
    ),
    "folder": Source(
        name="Images of a folder: {}",
        collection="Not known to tfcxr: the images and their label table were given by the user.",
        labelling="Not known to tfcxr.",
        license="Unknown; ask the owner of the data",
        terms="Unknown to tfcxr: ask the owner of the data what its use is allowed for and how to cite it.",
    ),
}


def lookup(source: str) -> Source:
    """Returns the facts about a record set's `source`.

    Args:
        source: a data set's name (`choices.DATASETS`), phantom-<hospital>, synthetic:<run> or folder:<name>. Anything
            else is treated as a folder of that name: nothing is known about it.
    """
    if source in _SOURCES:
        kind, detail = source, ""
    elif source.startswith("phantom-"):
        kind, detail = "phantom", source.removeprefix("phantom-")
    else:
        kind, _, detail = source.partition(":")
        kind, detail = (kind, detail) if kind in ("synthetic", "folder") else ("folder", source)
    facts = _SOURCES[kind]
    return dataclasses.replace(facts, name=facts.name.format(detail or "unnamed"))
