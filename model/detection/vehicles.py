"""Names of vehicle classes. They decide which detections networks take for vehicles."""

COCO_VEHICLES = ("car", "motorcycle", "bus", "truck")
OWN_CLASSES = ("vehicle", "vehicle.left", "vehicle.front", "vehicle.right")
VEHICLE_WORDS = {
    *COCO_VEHICLES, *OWN_CLASSES, "ambulance", "automobile", "caravan", "coach", "lorry", "minibus", "motor",
    "motorbike", "pickup", "suv", "taxi", "trailer", "tricycle", "van",
}  # fmt: skip
"""Class names, in lower case, that are left out only if the user says so."""
