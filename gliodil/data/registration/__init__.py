"""Bringing a patient's images to each other and the MNI152 template to the patient; every transform is kept.

`transform` is what comes out; `rigid` aligns images of one patient, `atlas` the template with the patient, `brain`
tells brain from the rest, `tissue` carries the maps, `prepare` does all of it for one patient.
"""
