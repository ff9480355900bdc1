import time

print("Wait for 60 seconds..")
time.sleep(60)
print("Done waiting")
