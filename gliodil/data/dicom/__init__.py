"""DICOM in and out: series to volumes, roles told from headers, segmentations and structure sets.

DICOM's world is LPS+, ours RAS+: x and y change sign at the border, in `gliodil.data.dicom.geometry`.
"""
