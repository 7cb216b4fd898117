"""DICOM in and out: series, contours (RTSTRUCT) and segmentations (SEG)."""
