"""Can readers tell synthetic images from real ones?"""
